package qupath.lib.images

class RotatedServer extends Server {
}
