package qupath.lib.projects

class Projects {
    static File getBaseDirectory(Project<?> project) { project.folder }
}
