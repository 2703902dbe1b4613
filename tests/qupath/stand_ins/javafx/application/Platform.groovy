package javafx.application

class Platform {
    static void runLater(Runnable action) { action.run() }
}
