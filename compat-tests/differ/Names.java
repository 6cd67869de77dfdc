import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.common.Uuid;

/**
 * What one broker has called things in one sequence: ids of topics, members, producers and sessions. Learned from its
 * answers, put into requests for the symbols there, and taken out of its answers before they are compared.
 */
final class Names {
    private static final Pattern UUID = Pattern.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}");
    private static final Pattern MILLIS = Pattern.compile("-92233[67]\\d{13}\\b|\\b1[6-9]\\d{11}\\b|\\b2\\d{12}\\b");
    /** A time of the broker's own clock is this near to ours; those of the requests are further away. */
    private static final long NOW_MS = 5 * 60_000;

    private final String prefix;
    private final Map<String, Uuid> topicIds = new HashMap<>();
    private final Map<String, String> shown = new LinkedHashMap<>();
    private final List<String> members = new ArrayList<>();
    private final List<Long> producers = new ArrayList<>();
    private long epoch;
    /** That of coordinators of transactions since the broker's start. */
    private final long coordinatorEpoch;
    private long generation = -1;
    private long session;

    Names(String prefix, long coordinatorEpoch) {
        this.prefix = prefix;
        this.coordinatorEpoch = coordinatorEpoch;
    }

    Uuid topicId(String name) {
        return topicIds.getOrDefault(name, Uuid.fromString("AAAAAAAAAAAAAAAAAAAAUg"));
    }

    String member(int number) {
        return members.isEmpty() ? "" : members.get(Math.min(number, members.size() - 1));
    }

    long producer() {
        return producers.isEmpty() ? 4242 : producers.get(producers.size() - 1);
    }

    long coordinatorEpoch() {
        return coordinatorEpoch;
    }

    /** That of the producer. */
    long epoch() {
        return epoch;
    }

    long generation() {
        return generation;
    }

    long session() {
        return session;
    }

    void learn(Object value) {
        if (value instanceof List<?> list) for (Object inner : list) if (!strange(inner)) learn(inner);
        if (!(value instanceof Map)) return;
        Map<String, Object> tree = Wire.tree(value);
        boolean right = Long.valueOf(0).equals(tree.get("error_code"));
        if (right && tree.get("topic_id") instanceof Uuid id && tree.get("name") instanceof String name && !id.equals(Uuid.ZERO_UUID)) {
            topicIds.put(name, id);
            shown.put(id.toString(), "<id of " + plain(name) + ">");
        }
        if (tree.get("member_id") instanceof String member && !member.isEmpty() && UUID.matcher(member).find() && !members.contains(member)) members.add(member);
        if (tree.get("generation_id") instanceof Long number && number >= 0) generation = number;
        if (tree.get("producer_id") instanceof Long number && number >= 0 && !producers.contains(number)) producers.add(number);
        if (right && tree.get("producer_epoch") instanceof Long number && number >= 0) epoch = number;
        if (tree.get("session_id") instanceof Long number && number != 0) session = number;
        tree.values().forEach(this::learn);
    }

    /** The answer with everything that is this broker's own replaced. */
    Object canonical(String name, Object value) {
        if (value instanceof Map) {
            Map<String, Object> tree = new LinkedHashMap<>();
            Wire.tree(value).forEach((field, inner) -> tree.put(field, canonical(field, inner)));
            return tree;
        }
        if (value instanceof List<?> list) {
            List<Object> result = new ArrayList<>();
            for (Object inner : list) if (!strange(inner)) result.add(canonical(name, inner));
            return result;
        }
        if (value instanceof byte[] bytes && name.equals("records")) return canonical("", Batch.read(bytes));
        if (value instanceof Uuid id) return id.equals(Uuid.ZERO_UUID) ? "<no id>" : shown.getOrDefault(id.toString(), "<id " + id + ">");
        if (value instanceof String string) return name.equals("log_dir") ? "<dir>" : name.equals("cluster_id") ? "<cluster>" : plain(string);
        if (value instanceof Long number) return number(name, number);
        return value;
    }

    private Object number(String name, long number) {
        if (name.equals("port")) return "<port>";
        if (name.equals("session_id") && number != 0) return "<session>";
        if (name.equals("producer_id") && number >= 0) return producers.contains(number) ? "<producer " + producers.indexOf(number) + ">" : number;
        return Math.abs(number - System.currentTimeMillis()) < NOW_MS ? "<now>" : (Object) number;
    }

    String plain(String text) {
        String result = text.replace(prefix, "df-");
        for (var one : shown.entrySet()) result = result.replace(one.getKey(), one.getValue());
        Matcher ids = UUID.matcher(result);
        result = ids.replaceAll(found -> {
            String member = found.group();
            for (int n = 0; n < members.size(); n++) if (members.get(n).contains(member)) return "<uuid " + n + ">";
            return "<uuid>";
        });
        return MILLIS.matcher(result).replaceAll("<ms>");
    }

    /** Whether an element of a list is about something that another sequence has made. */
    private boolean strange(Object element) {
        if (!(element instanceof Map)) return false;
        for (String key : List.of("name", "topic", "topic_name", "group_id", "resource_name", "transactional_id")) {
            if (Wire.tree(element).get(key) instanceof String name && name.startsWith("df") && !name.startsWith(prefix) && name.matches("df\\d+-.*")) return true;
        }
        return false;
    }
}
