package qupath.lib.projects

class ProjectIO {
    static Map<File, Project<?>> files = [:]

    static <T> Project<T> loadProject(File file, Class<T> kind) throws IOException {
        if (!files.containsKey(file))
            throw new FileNotFoundException(file.toString())
        return files[file]
    }
}
