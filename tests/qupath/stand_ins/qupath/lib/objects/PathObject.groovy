package qupath.lib.objects

import qupath.lib.objects.classes.PathClass

/** An object with a rectangle for its region. */
class PathObject {
    UUID id
    String kind
    PathClass pathClass
    double[] bounds

    UUID getID() { id }

    PathClass getPathClass() { pathClass }

    boolean hasROI() { bounds != null }

    Rectangle getROI() { new Rectangle(bounds: bounds) }

    boolean isAnnotation() { kind == 'annotation' }

    boolean isDetection() { kind != 'annotation' }

    boolean isTile() { kind == 'tile' }
}

class Rectangle {
    double[] bounds

    double getBoundsX() { bounds[0] }

    double getBoundsY() { bounds[1] }

    double getBoundsWidth() { bounds[2] - bounds[0] }

    double getBoundsHeight() { bounds[3] - bounds[1] }
}
