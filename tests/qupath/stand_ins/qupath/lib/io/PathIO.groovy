package qupath.lib.io

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.nio.file.Files
import java.nio.file.Path
import java.util.zip.GZIPInputStream
import qupath.lib.common.ColorTools
import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass

/** Reads objects as rectangles around their geometry, and writes them so. */
class PathIO {
    enum GeoJsonExportOptions {
        PRETTY_JSON, EXCLUDE_MEASUREMENTS, FEATURE_COLLECTION
    }

    static List<PathObject> readObjects(Path path) throws IOException {
        if (!path.fileName.toString().endsWith('.geojson.gz'))
            return []
        def text = new GZIPInputStream(Files.newInputStream(path)).getText('UTF-8')
        return new JsonSlurper().parseText(text).features.collect { read(it) }
    }

    static PathObject read(feature) {
        def properties = feature.properties
        def entry = properties.classification
        def pathClass = entry == null ? null : PathClass.fromString(entry.name, ColorTools.packRGB(*entry.color))
        def numbers = feature.geometry.coordinates.flatten()
        def (x, y) = [numbers.findAll { true }.collate(2)*.getAt(0), numbers.collate(2)*.getAt(1)]
        def bounds = [x.min(), y.min(), x.max(), y.max()] as double[]
        return new PathObject(id: UUID.fromString(feature.id), kind: properties.objectType, pathClass: pathClass,
            bounds: bounds)
    }

    static void exportObjectsAsGeoJSON(File file, Collection<? extends PathObject> objects,
            GeoJsonExportOptions... options) throws IOException {
        assert options as Set == [GeoJsonExportOptions.FEATURE_COLLECTION, GeoJsonExportOptions.EXCLUDE_MEASUREMENTS] as Set
        def document = [type: 'FeatureCollection', features: objects.collect { feature(it) }]
        file.setText(JsonOutput.toJson(document), 'UTF-8')
    }

    static feature(PathObject object) {
        def (left, top, right, bottom) = object.bounds as List
        def ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        def properties = [objectType: object.kind]
        if (object.pathClass != null) {
            def rgb = object.pathClass.getColor()
            properties.classification = [name: object.pathClass.toString(),
                color: [(rgb >> 16) & 255, (rgb >> 8) & 255, rgb & 255]]
        }
        return [type: 'Feature', id: object.id.toString(), geometry: [type: 'Polygon', coordinates: [ring]],
            properties: properties]
    }
}
