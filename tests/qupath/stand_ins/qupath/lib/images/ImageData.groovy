package qupath.lib.images

import qupath.lib.objects.hierarchy.PathObjectHierarchy

class ImageData<T> {
    final PathObjectHierarchy hierarchy = new PathObjectHierarchy()
    Server server

    PathObjectHierarchy getHierarchy() { hierarchy }

    Server getServer() { server }
}
