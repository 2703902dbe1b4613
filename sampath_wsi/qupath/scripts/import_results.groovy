/*
 * Imports the results of a run of sampath-wsi into the open QuPath project. For QuPath 0.4 and later.
 *
 * Add the run's slides to a project first. Then, in QuPath: Automate > Script editor, open this file, Run > Run (once,
 * not "Run for project"). Without a window:
 *
 *     QuPath script --args=/path/to/project.qpproj --args=/path/to/results import_results.groovy
 *
 * An image gets the objects of the result whose slide has the same file name, or else the same id. Running it again
 * imports only what has changed: objects that an earlier import brought are replaced, all others stay.
 */

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.awt.image.BufferedImage
import java.security.MessageDigest
import javafx.application.Platform
import qupath.lib.common.ColorTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO
import qupath.lib.objects.classes.PathClass
import qupath.lib.projects.ProjectIO
import qupath.lib.projects.Projects
import qupath.lib.scripting.QP

// ------------------------------------------------------------------------------------------------- what you may change
// The folder that holds "slides" and "cohort.tsv". Empty: the script's argument, or else QuPath asks.
def resultsFolder = ''
// Tiles with their mean probabilities, for Measure > Show measurement maps (config: vectorize: {tiles: true}).
def importTiles = true
// ---------------------------------------------------------------------------------------------------------------------

def arguments = scriptArguments()
def project = findProject(arguments)
def slidesFolder = findSlidesFolder(resultsFolder ?: arguments.find { !it.endsWith('.qpproj') })
def (slides, unfinished) = readSlides(slidesFolder)
def classes = setClasses(project, slides)
def used = [] as Set
def counts = [imported: 0, unchanged: 0, 'without result': 0, failed: 0]
for (entry in project.getImageList()) {
    def line
    try {
        def slide = findSlide(entry, slides)
        if (slide != null)
            used << slide.id
        def outcome = slide == null ? [kind: 'without result', text: 'no result has its file name or id']
            : importSlide(project, entry, slide, importTiles)
        counts[outcome.kind]++
        line = outcome.text
    } catch (Exception | OutOfMemoryError error) {
        counts.failed++
        line = "FAILED: ${error.getMessage() ?: error}"
    }
    println "${entry.getImageName()}: ${line}"
}
project.syncChanges()
slides.findAll { !(it.id in used) }.each { println "Result ${it.id}: no image in the project is called ${it.file}" }
unfinished.each { println "Result ${it}: not finished or failed, see cohort.tsv" }
println "Classes: ${classes.join(', ')}"
println counts.collect { kind, n -> "${n} ${kind}" }.join(', ')
if (counts.failed)
    throw new RuntimeException("${counts.failed} images could not be imported: the lines above say why.")


/** The folder with one folder a slide. */
def findSlidesFolder(String path) {
    def folder = path ? new File(path) : askForFolder()
    if (folder == null)
        throw new IllegalArgumentException('No results folder: set resultsFolder at the top, or give --args=FOLDER.')
    def slides = folder.name == 'slides' ? folder : new File(folder, 'slides')
    if (!slides.isDirectory())
        throw new IllegalArgumentException("${folder}: holds no folder 'slides'. Name the folder with cohort.tsv in it.")
    return slides
}

/** Ask in a window: with QuPath 0.5 and later, or 0.4. */
def askForFolder() {
    if (QuPathGUI.getInstance() == null)
        return null
    def title = 'Folder of the results (with cohort.tsv)'
    for (name in ['qupath.fx.dialogs.FileChoosers', 'qupath.lib.gui.dialogs.Dialogs']) {
        def chooser
        try {
            chooser = Class.forName(name)
        } catch (ClassNotFoundException ignored) {
            continue
        }
        if (chooser.metaClass.respondsTo(chooser, 'promptForDirectory', String, File))
            return chooser.promptForDirectory(title, (File) null)
        return chooser.promptForDirectory((File) null)
    }
    return null
}

/** What each finished slide's summary says, and the ids of those that have none. */
def readSlides(File folder) {
    def folders = (folder.listFiles() ?: []).findAll { it.isDirectory() }.sort { it.name }
    def (finished, unfinished) = folders.split { new File(it, 'summary.json').isFile() }
    def slides = finished.collect {
        def summary = new JsonSlurper().parse(new File(it, 'summary.json'), 'UTF-8')
        [id: it.name, file: summary.file, folder: it, classes: summary.classes, objects: summary.objects ?: [:]]
    }
    if (!slides)
        throw new IllegalArgumentException("${folder}: no slide is finished")
    return [slides, unfinished*.name]
}

/** Give the classes of the results their colours, and the project's list of classes those that it lacks. */
def setClasses(project, slides) {
    def colours = [:]
    slides.each { it.classes.each { name, entry -> colours[name] = entry.color } }
    def ours = colours.findAll { name, colour -> colour }.collect { name, colour ->
        def pathClass = PathClass.fromString(name)
        pathClass.setColor(ColorTools.packRGB(colour[0], colour[1], colour[2]))
        pathClass
    }
    def known = new ArrayList(project.getPathClasses())
    def all = known + ours.findAll { !known.contains(it) }
    project.setPathClasses(all)
    def gui = QuPathGUI.getInstance()
    if (gui != null) {
        Platform.runLater {
            def shown = new ArrayList(gui.getAvailablePathClasses())
            gui.getAvailablePathClasses().setAll(shown + ours.findAll { !shown.contains(it) })
        }
    }
    return ours*.toString()
}

/** The result of an image: by the names of its files, else by the image's own name, else by the slide's id. */
def findSlide(entry, slides) {
    def files = entry.getURIs().collect { it.getPath() }.findAll().collect { new File(it).name }
    def name = entry.getOriginalImageName()
    def ids = [name, *files].collect { [it, it.replaceAll(/\.[^.]*$/, '')] }.flatten()
    ids += ids.collect { it.replaceAll(/[^A-Za-z0-9._-]+/, '_').replaceAll(/^[._-]+|[._-]+$/, '') }
    def found = slides.findAll { it.file in files } ?: slides.findAll { it.file == name || name.startsWith(it.file + ' - ') }
    found = found ?: slides.findAll { it.id in ids }
    if (found.size() > 1)
        found = found.findAll { it.id in ids } ?: found
    if (found.size() > 1)
        throw new IllegalArgumentException("several results fit: ${found*.id.join(', ')}. Call the image like one of them.")
    return found ? found[0] : null
}

/** Import a slide's files, unless they are there; objects of an earlier import make way. */
def importSlide(project, entry, slide, importTiles) {
    def names = ['segmentation.geojson.gz'] + (importTiles ? ['tiles.geojson.gz'] : [])
    def files = names.collect { new File(slide.folder, it) }.findAll { it.isFile() }
    if (files*.name.indexOf(names[0]) < 0)
        throw new FileNotFoundException("${new File(slide.folder, names[0])} is missing")
    def memory = new File(Projects.getBaseDirectory(project), "sampath-wsi/${entry.getID()}.json")
    def before = memory.isFile() ? new JsonSlurper().parse(memory, 'UTF-8') : [files: null, ids: []]
    def sums = files.collectEntries { [it.name, sha256(it)] }

    def imageData = imageDataOf(project, entry)
    def hierarchy = imageData.getHierarchy()
    def present = hierarchy.getAllObjects(false).collectEntries { [it.getID().toString(), it] }
    if (before.files == sums && (before.ids.isEmpty() || before.ids.any { present.containsKey(it) })) {
        def gone = before.ids.count { !present.containsKey(it) }
        return [kind: 'unchanged', text: 'unchanged' + (gone ? ", ${gone} objects were deleted since and stay so" : '')]
    }
    def objects = files.collectMany { PathIO.readObjects(it.toPath()) }
    checkThatTheyFit(objects, slide, imageData.getServer())
    def ids = objects.collect { it.getID().toString() }
    def old = ((before.ids + ids) as Set).collect { present[it] }.findAll()
    hierarchy.removeObjects(old, true)
    hierarchy.addObjects(objects)
    entry.saveImageData(imageData)
    memory.parentFile.mkdirs()
    memory.setText(JsonOutput.toJson([slide: slide.id, files: sums, ids: ids]), 'UTF-8')

    def kinds = objects.countBy { it.isTile() ? 'tiles' : it.isAnnotation() ? 'annotations' : 'detections' }
    def text = kinds.collect { kind, n -> "${n} ${kind}" }.join(' and ') ?: 'no objects (no tissue)'
    return [kind: 'imported', text: text + (old ? ", ${old.size()} objects of an earlier import replaced" : '')]
}

/** Refuse what QuPath did not read whole, and what lies outside of the image: then it belongs to another. */
def checkThatTheyFit(objects, slide, server) {
    def expected = slide.objects.values().sum() ?: 0
    def regions = objects.count { !it.isTile() }
    if (regions != expected)
        throw new IOException("QuPath read ${regions} of ${expected} objects. Run the workflow again, or see QuPath's log.")
    def rois = objects*.getROI()
    def right = rois.collect { it.getBoundsX() + it.getBoundsWidth() }.max() ?: 0
    def bottom = rois.collect { it.getBoundsY() + it.getBoundsHeight() }.max() ?: 0
    def least = rois.collect { Math.min(it.getBoundsX(), it.getBoundsY()) }.min() ?: 0
    if (least < -1 || right > server.getWidth() + 1 || bottom > server.getHeight() + 1)
        throw new IllegalArgumentException(
            "the objects reach to ${right.round()}, ${bottom.round()} px, but the image has ${server.getWidth()} x " +
            "${server.getHeight()} px: it is another image, or was opened rotated, cropped or by another reader.")
}

def sha256(File file) {
    def digest = MessageDigest.getInstance('SHA-256')
    file.eachByte(1 << 20) { buffer, length -> digest.update(buffer, 0, length) }
    return digest.digest().encodeHex().toString()
}
