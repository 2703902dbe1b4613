package qupath.lib.gui

import qupath.lib.objects.classes.PathClass

/** No instance without a window, as when QuPath runs a script from the command line. */
class QuPathGUI {
    static QuPathGUI instance
    Shown availablePathClasses = new Shown()
    List<Viewer> viewers = []

    static QuPathGUI getInstance() { instance }

    /** As QuPath 0.4 calls it; from 0.5 on it is getAllViewers. */
    List<Viewer> getViewers() { viewers }

    Shown getAvailablePathClasses() { availablePathClasses }
}

/** An observable list. */
class Shown extends ArrayList<PathClass> {
    boolean setAll(Collection<PathClass> classes) {
        clear()
        return addAll(classes)
    }
}
