/*
 * Runs a script for QuPath on a project of stand-ins that a JSON file describes, and writes there what became of it:
 *
 *     groovy -cp stand_ins run_script.groovy STATE.json SCRIPT [ARGUMENT ...]
 */

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.Viewer
import qupath.lib.images.ImageData
import qupath.lib.images.RotatedServer
import qupath.lib.images.Server
import qupath.lib.io.PathIO
import qupath.lib.objects.classes.PathClass
import qupath.lib.projects.Project
import qupath.lib.projects.ProjectIO
import qupath.lib.projects.ProjectImageEntry
import qupath.lib.scripting.QP

def (stateFile, scriptFile) = [new File(args[0]), new File(args[1])]
def state = new JsonSlurper().parse(stateFile, 'UTF-8')
state.knownClasses.each { name, rgb -> PathClass.fromString(name, rgb) }
def load = { image ->
    if (image.missing)
        throw new IOException('the image file is missing')
    def make = image.rotated ? RotatedServer : Server
    def server = make.newInstance(width: image.width, height: image.height, mpp: image.mpp, mppY: image.mppY)
    def imageData = new ImageData(server: server)
    imageData.hierarchy.addObjects(image.objects.collect { PathIO.read(it) })
    return imageData
}
def project = new Project(folder: new File(state.folder))
state.images.each { image ->
    def entry = new ProjectImageEntry(id: image.id, name: image.name, originalName: image.originalName ?: image.name,
        uris: image.uris.collect { new URI(it) }, metadata: image.metadata ?: [:], read: { load(image) })
    if (image.open)
        entry.live = load(image)
    project.images << entry
}
project.setPathClasses(state.classes.collect { PathClass.fromString(it) })
ProjectIO.files[new File(state.folder, 'project.qpproj')] = project
if (!state.noProject)
    QP.project = project
if (state.runForEachImage)
    QP.imageData = load(state.images[0])
if (state.window) {
    QuPathGUI.instance = new QuPathGUI(viewers: project.images*.live.findAll().collect { new Viewer(imageData: it) })
    QuPathGUI.instance.availablePathClasses.addAll([PathClass.NULL_CLASS] + project.getPathClasses())
    QP.imageData = project.images*.live.find()
    FileChoosers.answer = state.answer ? new File(state.answer) : null
}

def problem = null
def variables = args.length > 2 ? [args: args.drop(2)] : [:]
try {
    new GroovyShell(this.class.classLoader, new Binding(variables)).evaluate(scriptFile)
} catch (Exception error) {
    problem = error.getMessage() ?: error.toString()
}
project.images.eachWithIndex { entry, k ->
    if (entry.live != null && entry.saved != null)
        assert entry.saved.is(entry.live): 'a viewer shows something else than what was saved'
    if (entry.saved != null)
        state.images[k].objects = entry.saved.hierarchy.objects.collect { PathIO.feature(it) }
}
state.classes = project.getPathClasses()*.toString()
state.colours = project.getPathClasses().collectEntries { [it.toString(), it.getColor() & 0xffffff] }
state.shown = QuPathGUI.instance?.availablePathClasses*.toString()
state.synced = project.synced
state.problem = problem
stateFile.setText(JsonOutput.toJson(state), 'UTF-8')
