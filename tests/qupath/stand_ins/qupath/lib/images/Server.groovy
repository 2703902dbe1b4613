package qupath.lib.images

class Server {
    int width, height
    Double mpp, mppY

    int getWidth() { width }

    int getHeight() { height }

    Calibration getPixelCalibration() { new Calibration(mpp: mpp, mppY: mppY ?: mpp) }
}

class Calibration {
    Double mpp, mppY

    boolean hasPixelSizeMicrons() { mpp != null }

    Number getPixelWidthMicrons() { mpp }

    Number getPixelHeightMicrons() { mppY }
}
