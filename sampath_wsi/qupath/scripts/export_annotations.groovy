/*
 * Exports the annotations of all images of the open QuPath project for training. For QuPath 0.4 and later.
 *
 * In QuPath: Automate > Script editor, open this file, Run > Run (once, not "Run for project"). Without a window:
 *
 *     QuPath script --args=/path/to/project.qpproj --args=/path/to/folder export_annotations.groovy
 *
 * Writes one GeoJSON a slide and the sample sheet annotated.tsv. Then train a model with
 *
 *     snakemake train --cores 8 --resources gpu=1 --config training='{source: /path/to/folder/annotated.tsv}'
 */

import groovy.json.JsonSlurper
import java.awt.image.BufferedImage
import qupath.lib.gui.QuPathGUI
import qupath.lib.io.PathIO
import qupath.lib.projects.ProjectIO
import qupath.lib.projects.Projects
import qupath.lib.scripting.QP

// ------------------------------------------------------------------------------------------------- what you may change
// Where the files go. Empty: the script's argument, or else the folder "training" in the project.
def outputFolder = ''
// Objects that import_results.groovy brought are a model's predictions, which nobody should train on by mistake.
// true exports them too: after you have corrected them.
def includeImported = false
// The name of a column of the project's metadata that says whose slide it is (patient, case): such images stay together
// on one side of the split between training and validation. Empty: every slide by itself.
def groupMetadata = ''
// ---------------------------------------------------------------------------------------------------------------------

def arguments = scriptArguments()
def project = findProject(arguments)
def target = outputFolder ?: arguments.find { !it.endsWith('.qpproj') }
def folder = (target ? new File(target) : new File(Projects.getBaseDirectory(project), 'training')).getAbsoluteFile()
def rows = []
def failed = 0
for (entry in project.getImageList()) {
    def line
    try {
        def outcome = exportImage(project, entry, folder, includeImported, groupMetadata, rows*.slide)
        if (outcome.row)
            rows << outcome.row
        line = outcome.text
    } catch (Exception | OutOfMemoryError error) {
        failed++
        line = "FAILED: ${error.getMessage() ?: error}"
    }
    println "${entry.getImageName()}: ${line}"
}
if (rows) {
    def sheet = new File(folder, 'annotated.tsv')
    def columns = ['slide', 'path', 'annotations', 'group', 'mpp']
    sheet.setText(([columns] + rows.collect { row -> columns.collect { cell(row[it]) } })*.join('\t').join('\n') + '\n', 'UTF-8')
    println "${sheet}: ${rows.size()} slides"
}
if (failed || !rows)
    throw new RuntimeException(failed ? "${failed} images could not be exported: the lines above say why."
        : 'No image of this project has annotations.')


/** Write the annotations of an image, and tell its row of the sheet (none without annotations). */
def exportImage(project, entry, folder, includeImported, groupMetadata, taken) {
    def imageData = imageDataOf(project, entry)
    def all = imageData.getHierarchy().getAnnotationObjects().findAll { it.hasROI() }
    def imported = importedIds(project, entry)
    def chosen = includeImported ? all : all.findAll { !(it.getID().toString() in imported) }
    def notes = []
    if (chosen.size() < all.size())
        notes << "${all.size() - chosen.size()} imported predictions left out (includeImported)"
    def unclassified = chosen.count { it.getPathClass() == null }
    if (unclassified)
        notes << "${unclassified} without a class, which training leaves out"
    if (!chosen)
        return [text: ['no annotations', *notes].join(', ')]

    def server = imageData.getServer()
    if (server.getClass().getSimpleName() =~ /Rotated|Cropped|Affine|Concat/)
        throw new IllegalArgumentException('opened rotated or cropped: its coordinates are not those of the file')
    def files = entry.getURIs().findAll { it.getScheme() == 'file' }.collect { new File(it) }
    if (files.size() != 1)
        throw new IllegalArgumentException("it has ${files.size()} files on this computer, one is needed")
    def id = freeId(files[0].name.replaceAll(/\.[^.]*$/, ''), taken)
    def annotations = new File(folder, "annotations/${id}.geojson")
    annotations.parentFile.mkdirs()
    PathIO.exportObjectsAsGeoJSON(annotations, chosen, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION,
        PathIO.GeoJsonExportOptions.EXCLUDE_MEASUREMENTS)
    // The first with QuPath 0.6 and later.
    def metadata = entry.metaClass.respondsTo(entry, 'getMetadata') ? entry.getMetadata() : entry.getMetadataMap()
    def group = groupMetadata ? metadata[groupMetadata] : null
    if (groupMetadata && !group)
        notes << "no '${groupMetadata}' in its metadata"
    def row = [slide: id, path: files[0].path, annotations: annotations.path, group: group ?: id, mpp: mppOf(server)]
    if (!row.mpp)
        notes << 'QuPath knows no pixel size: fill in the column mpp'
    return [row: row, text: ["${chosen.size()} annotations", *notes].join(', ')]
}

/** The ids of what import_results.groovy brought. */
def importedIds(project, entry) {
    def memory = new File(Projects.getBaseDirectory(project), "sampath-wsi/${entry.getID()}.json")
    return memory.isFile() ? new JsonSlurper().parse(memory, 'UTF-8').ids as Set : [] as Set
}

/** A name for a slide that the sample sheet takes and no other slide has. */
def freeId(String name, taken) {
    def id = name.replaceAll(/[^A-Za-z0-9._-]+/, '_').replaceAll(/^[._-]+|[._-]+$/, '').take(100) ?: 'slide'
    def lower = taken*.toLowerCase()
    return [id, *(2..lower.size() + 2).collect { "${id}_${it}".toString() }].find { !(it.toLowerCase() in lower) }
}

/** Micrometres a pixel as the sheet takes them, from what QuPath shows; empty where it shows pixels. */
def mppOf(server) {
    def calibration = server.getPixelCalibration()
    if (!calibration.hasPixelSizeMicrons())
        return ''
    def sides = [calibration.getPixelWidthMicrons(), calibration.getPixelHeightMicrons()]
    return sides.collect { String.format(Locale.ROOT, '%.6f', it as double) }.unique().join('x')
}

/** A cell of a tab-separated sheet. */
def cell(value) {
    def text = value.toString()
    if (text =~ /[\t\r\n]/)
        throw new IllegalArgumentException("'${text}' holds a tab or a new line, which no sheet can hold")
    return text.contains('"') ? '"' + text.replace('"', '""') + '"' : text
}
