package qupath.fx.dialogs

class FileChoosers {
    static File answer

    static File promptForDirectory(String title, File initialDirectory) { answer }
}
