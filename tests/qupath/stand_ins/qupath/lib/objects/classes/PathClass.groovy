package qupath.lib.objects.classes

/** One instance a name; a colour that is given later than the first is not taken, as in QuPath. */
class PathClass implements Comparable<PathClass> {
    private static final Map<String, PathClass> KNOWN = [:]
    static final PathClass NULL_CLASS = new PathClass(null, null)
    private final String name
    private Integer color

    private PathClass(String name, Integer color) {
        this.name = name
        this.color = color
    }

    static PathClass fromString(String name) { fromString(name, null) }

    static PathClass fromString(String name, Integer color) {
        if (!name?.trim())
            throw new IllegalArgumentException("'${name}' is no name of a class")
        if (!KNOWN.containsKey(name))
            KNOWN[name] = new PathClass(name, color ?: 0x404040)
        return KNOWN[name]
    }

    void setColor(Integer color) { this.color = color }

    Integer getColor() { color }

    String getName() { name }

    @Override
    String toString() { name ?: 'Unclassified' }

    @Override
    int compareTo(PathClass other) { toString() <=> other.toString() }
}
