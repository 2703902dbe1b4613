/** The script's arguments, if it was started with any. */
def scriptArguments() {
    try {
        return args as List ?: []
    } catch (MissingPropertyException ignored) {
        return []
    }
}

/** The project that an argument names, or the open one; QuPath may also run a script for one image after the other. */
def findProject(arguments) {
    def file = arguments.find { it.endsWith('.qpproj') }
    if (file)
        return ProjectIO.loadProject(new File(file), BufferedImage)
    if (QP.getProject() == null)
        throw new IllegalStateException('No project is open. Open one that has the slides, and run this script again.')
    def current = QP.getCurrentImageData()
    if (current != null && !openImages().any { it.is(current) })
        throw new IllegalStateException('This script takes the whole project at once. Choose Run, not "Run for project"; ' +
            'on a command line give the project as --args=PROJECT.qpproj, not as --project.')
    return QP.getProject()
}

/** The images that viewers show. */
def openImages() {
    def gui = QuPathGUI.getInstance()
    if (gui == null)
        return []
    // The first with QuPath 0.5 and later.
    def viewers = gui.metaClass.respondsTo(gui, 'getAllViewers') ? gui.getAllViewers() : gui.getViewers()
    return viewers.collect { it.getImageData() }.findAll { it != null }
}

/** The image that a viewer shows, if one does: it holds what is not saved yet, and overwrites what is. */
def imageDataOf(project, entry) {
    return openImages().find { project.getEntry(it) == entry } ?: entry.readImageData()
}
