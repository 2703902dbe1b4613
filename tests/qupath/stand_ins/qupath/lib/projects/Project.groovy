package qupath.lib.projects

import qupath.lib.images.ImageData
import qupath.lib.objects.classes.PathClass

class Project<T> {
    File folder
    List<ProjectImageEntry<T>> images = []
    private List<PathClass> pathClasses = []
    int synced = 0

    List<ProjectImageEntry<T>> getImageList() { images.asImmutable() }

    List<PathClass> getPathClasses() { pathClasses.asImmutable() }

    boolean setPathClasses(Collection<? extends PathClass> classes) {
        pathClasses = new ArrayList<>(classes)
        return true
    }

    ProjectImageEntry<T> getEntry(ImageData<T> imageData) { images.find { it.live.is(imageData) } }

    void syncChanges() throws IOException { synced++ }
}
