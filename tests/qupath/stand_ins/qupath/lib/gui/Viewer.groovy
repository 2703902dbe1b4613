package qupath.lib.gui

import qupath.lib.images.ImageData

class Viewer {
    ImageData<?> imageData

    ImageData<?> getImageData() { imageData }
}
