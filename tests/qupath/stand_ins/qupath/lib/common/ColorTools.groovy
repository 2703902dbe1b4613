package qupath.lib.common

class ColorTools {
    static int packRGB(int r, int g, int b) { (255 << 24) | (r << 16) | (g << 8) | b }
}
