package qupath.lib.scripting

import qupath.lib.images.ImageData
import qupath.lib.projects.Project

class QP {
    static Project<?> project
    static ImageData<?> imageData

    static Project<?> getProject() { project }

    static ImageData<?> getCurrentImageData() { imageData }
}
