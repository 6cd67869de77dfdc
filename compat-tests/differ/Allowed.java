import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;

/**
 * The differences that are meant. A line of the file:
 *
 *     API | versions | path | metaq's value | Kafka's value | when | reason
 *
 * API: a name, or *. Versions: 3, 0-4, 7+ or *. Path: as reports print it, or with nothing in brackets; .* at its
 * end also takes all below; <answer> for the answer as a whole. Values: the text, * for any, parts of a text as part*part. When: empty, or words
 * that must all be true of the request: tags that reports print, and `ends`, which is no condition but says that states
 * differ from then on, so that the rest of the sequence is not compared.
 */
final class Allowed {
    private final List<Line> lines = new ArrayList<>();

    private static final class Line {
        String api;
        String text;
        int from;
        int to;
        Pattern path;
        Pattern metaq;
        Pattern kafka;
        List<String> when;
        boolean ends;
        /** The answers are alike, and what they stand for is not. */
        boolean ofState;
        int matched;
    }

    Allowed(Path file) throws IOException {
        int number = 0;
        for (String text : Files.readAllLines(file)) {
            number++;
            if (text.isBlank() || text.startsWith("#")) continue;
            String[] parts = text.split("\\s*\\|\\s*", 7);
            if (parts.length < 7 || parts[6].isBlank()) throw new IOException(file + ", line " + number + ": seven parts and a reason are needed");
            Line line = new Line();
            line.text = text;
            line.api = parts[0].strip();
            String versions = parts[1];
            line.from = versions.equals("*") ? -1 : Integer.parseInt(versions.split("[-+]")[0]);
            line.to = versions.equals("*") || versions.endsWith("+") ? 999 : Integer.parseInt(versions.contains("-") ? versions.split("-")[1] : versions);
            line.ofState = parts[2].equals("<state>");
            line.path = glob(parts[2].endsWith(".*") ? parts[2].substring(0, parts[2].length() - 2) : parts[2], parts[2].endsWith(".*"));
            line.metaq = glob(parts[3], false);
            line.kafka = glob(parts[4], false);
            line.when = new ArrayList<>(List.of(parts[5].isBlank() ? new String[0] : parts[5].strip().split("\\s+")));
            line.ends = line.when.remove("ends");
            lines.add(line);
        }
    }

    private static Pattern glob(String text, boolean below) {
        StringBuilder pattern = new StringBuilder();
        for (String part : text.split("\\*", -1)) pattern.append(pattern.isEmpty() ? "" : ".*").append(Pattern.quote(part));
        return Pattern.compile(pattern + (below ? "([.\\[].*)?" : ""), Pattern.DOTALL);
    }

    /** Whether a difference is allowed; `ends` of the lines that allow it is put into `ended`. */
    boolean allows(String api, int version, Diff.Found found, Set<String> tags, boolean[] ended) {
        for (Line line : lines) {
            if (!line.api.equals("*") && !line.api.equals(api) || version < line.from || version > line.to) continue;
            if (!line.path.matcher(found.kind()).matches() && !line.path.matcher(found.path()).matches() || !tags.containsAll(line.when)) continue;
            if (!line.metaq.matcher(found.metaq()).matches() || !line.kafka.matcher(found.kafka()).matches()) continue;
            line.matched++;
            ended[0] |= line.ends;
            return true;
        }
        return false;
    }

    /** Whether a request may leave something else in each broker though the answers are alike: what comes after it is not compared. */
    boolean leavesOtherState(String api, int version, Set<String> tags) {
        for (Line line : lines) {
            if (!line.ofState || !line.api.equals(api) || version < line.from || version > line.to || !tags.containsAll(line.when)) continue;
            line.matched++;
            return true;
        }
        return false;
    }

    /** Lines of the APIs that were asked which nothing has matched: perhaps mended since. */
    List<String> unmatched(Set<String> asked) {
        return lines.stream().filter(line -> line.matched == 0 && (line.api.equals("*") || asked.contains(line.api))).map(line -> line.text).toList();
    }
}
