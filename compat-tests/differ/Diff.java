import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/** Where two answers differ, field by field. What has a name is compared with what has the same name. */
final class Diff {
    /** A path with names in brackets, and both values as text; `absent` where a broker has none. */
    record Found(String path, String metaq, String kafka) {
        /** The path with nothing in brackets, as the list of allowed differences has it. */
        String kind() {
            return path.replaceAll("\\[[^\\[\\]]*(\\[[^\\]]*\\])?[^\\[\\]]*\\]", "[]");
        }
    }

    private static final List<String> KEYS = List.of("transactional_id", "producer_id", "topic_id", "name", "topic", "topic_name", "group_id", "key", "member_id", "partition_index",
        "partition", "index", "partition_id", "resource_type", "resource_name", "api_key", "node_id", "broker_id", "log_dir", "batch_index", "entity_type",
        "pattern_type", "principal", "operation", "permission_type");

    private final List<Found> all = new ArrayList<>();

    static List<Found> between(Object metaq, Object kafka) {
        Diff diff = new Diff();
        diff.compare("", metaq, kafka);
        return diff.all;
    }

    private void compare(String path, Object metaq, Object kafka) {
        if (metaq instanceof Map && kafka instanceof Map) {
            Map<String, Object> ours = Wire.tree(metaq);
            Map<String, Object> theirs = Wire.tree(kafka);
            Set<String> fields = new LinkedHashSet<>(theirs.keySet());
            fields.addAll(ours.keySet());
            for (String field : fields) {
                String inner = path.isEmpty() ? field : path + "." + field;
                if (!ours.containsKey(field)) found(inner, "absent", summary(theirs.get(field)));
                else if (!theirs.containsKey(field)) found(inner, summary(ours.get(field)), "absent");
                else compare(inner, ours.get(field), theirs.get(field));
            }
        } else if (metaq instanceof List<?> ours && kafka instanceof List<?> theirs) {
            compareLists(path, ours, theirs);
        } else if (!Objects.equals(summary(metaq), summary(kafka))) {
            found(path, summary(metaq), summary(kafka));
        }
    }

    private void compareLists(String path, List<?> metaq, List<?> kafka) {
        Map<String, Object> ours = named(metaq);
        Map<String, Object> theirs = named(kafka);
        Set<String> names = new LinkedHashSet<>(theirs.keySet());
        names.addAll(ours.keySet());
        for (String name : names) {
            String inner = path + "[" + name + "]";
            if (!ours.containsKey(name)) found(inner, "absent", summary(theirs.get(name)));
            else if (!theirs.containsKey(name)) found(inner, summary(ours.get(name)), "absent");
            else compare(inner, ours.get(name), theirs.get(name));
        }
    }

    private static Map<String, Object> named(List<?> list) {
        Map<String, Object> result = new LinkedHashMap<>();
        for (Object element : list) {
            StringBuilder name = new StringBuilder();
            boolean keyed = !(element instanceof Map);
            if (element instanceof Map) {
                for (String key : KEYS) {
                    Object value = Wire.tree(element).get(key);
                    if (value == null || value instanceof Map || value instanceof List) continue;
                    name.append(keyed ? "," : "").append(short_(value));
                    keyed = true;
                }
            } else {
                name.append(short_(element));
            }
            String unique = keyed ? name.toString() : "#" + result.size();
            if (keyed && result.get(unique) instanceof Map && joined(Wire.tree(result.get(unique)), Wire.tree(element))) continue;
            for (int n = 2; result.containsKey(unique); n++) unique = name + " again " + n;
            result.put(unique, element);
        }
        return result;
    }

    /** A topic may be there twice, where the request names it twice or partitions are refused at different stages: the partitions of both count. */
    private static boolean joined(Map<String, Object> tree, Map<String, Object> more) {
        for (String name : List.of("partitions", "partition_responses", "partition_result")) {
            if (tree.get(name) instanceof List<?> some && more.get(name) instanceof List<?> others) {
                List<Object> all = new ArrayList<>(some);
                all.addAll(others);
                tree.put(name, all);
                return true;
            }
        }
        return false;
    }

    private static String short_(Object value) {
        String text = String.valueOf(value instanceof byte[] ? Wire.text(value) : value).replaceAll("[\\[\\]|]", "_");
        return text.length() > 60 ? text.substring(0, 40) + "… (" + text.length() + ")" : text;
    }

    private static String summary(Object value) {
        if (value instanceof Map || value instanceof List) {
            StringBuilder out = new StringBuilder();
            Wire.print(value, "", out);
            return out.toString().replaceAll("\\s+", " ");
        }
        return Wire.text(value);
    }

    private void found(String path, String metaq, String kafka) {
        all.add(new Found(path, metaq, kafka));
    }
}
