package qupath.lib.projects

import qupath.lib.images.ImageData

/** What is saved, and what a viewer shows: readImageData gives a copy, and what is not saved is lost. */
class ProjectImageEntry<T> {
    String id, name, originalName
    List<URI> uris
    Map<String, String> metadata = [:]
    Closure<ImageData<T>> read
    ImageData<T> live, saved

    String getID() { id }

    String getImageName() { name }

    String getOriginalImageName() { originalName }

    Collection<URI> getURIs() throws IOException { uris }

    Map<String, String> getMetadataMap() { metadata.asImmutable() }

    ImageData<T> readImageData() throws IOException { read(this) }

    void saveImageData(ImageData<T> imageData) throws IOException { saved = imageData }
}
