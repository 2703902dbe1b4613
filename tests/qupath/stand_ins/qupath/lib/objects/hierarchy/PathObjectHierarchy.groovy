package qupath.lib.objects.hierarchy

import qupath.lib.objects.PathObject

/** Without the tree: like QuPath's, it holds an object twice that is added twice under the same id. */
class PathObjectHierarchy {
    private final List<PathObject> objects = []

    boolean addObjects(Collection<? extends PathObject> more) { objects.addAll(more) }

    void removeObjects(Collection<? extends PathObject> some, boolean keepChildren) {
        assert keepChildren: 'objects that people drew inside would go too'
        objects.removeAll { object -> some.any { it.is(object) } }
    }

    Collection<PathObject> getAllObjects(boolean includeRoot) {
        assert !includeRoot
        return new LinkedHashSet<PathObject>(objects)
    }

    Collection<PathObject> getAnnotationObjects() { objects.findAll { it.isAnnotation() } }
}
