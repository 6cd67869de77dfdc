import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.source.ExactlyOnceSupport;
import org.apache.kafka.connect.source.SourceConnector;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.source.SourceTask;

/** A source whose task n writes the numbers from 0 to partition n of a topic, exactly once where Connect does, until a file is there. */
public class Numbers extends SourceConnector {
    private static final String TASK = "task", TOPIC = "topic", UNTIL = "until.file";
    private Map<String, String> config;

    @Override
    public void start(Map<String, String> config) {
        this.config = config;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int tasks) {
        return IntStream.range(0, tasks)
            .mapToObj(n -> Map.of(TASK, String.valueOf(n), TOPIC, config.get(TOPIC), UNTIL, config.get(UNTIL)))
            .toList();
    }

    @Override
    public ExactlyOnceSupport exactlyOnceSupport(Map<String, String> config) {
        return ExactlyOnceSupport.SUPPORTED;
    }

    @Override
    public Class<? extends Task> taskClass() {
        return Counting.class;
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef()
            .define(TOPIC, ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "Where the numbers go.")
            .define(UNTIL, ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "The file that ends it.");
    }

    @Override
    public String version() {
        return "1";
    }

    @Override
    public void stop() {}

    public static class Counting extends SourceTask {
        private static final String NEXT = "next";
        private static final int AT_A_TIME = 10;
        private Map<String, String> source;
        private String topic;
        private int partition;
        private long next;
        private Path until;

        @Override
        public void start(Map<String, String> config) {
            topic = config.get(TOPIC);
            partition = Integer.parseInt(config.get(TASK));
            until = Path.of(config.get(UNTIL));
            source = Map.of(TASK, config.get(TASK));
            Map<String, Object> stored = context.offsetStorageReader().offset(source);
            next = stored == null ? 0 : (Long) stored.get(NEXT);
        }

        @Override
        public List<SourceRecord> poll() throws InterruptedException {
            Thread.sleep(20);
            if (Files.exists(until)) return null;
            List<SourceRecord> records = new ArrayList<>();
            for (; records.size() < AT_A_TIME; next++) {
                records.add(new SourceRecord(source, Map.of(NEXT, next + 1), topic, partition, Schema.STRING_SCHEMA, "task " + partition, Schema.STRING_SCHEMA, String.valueOf(next)));
            }
            return records;
        }

        @Override
        public String version() {
            return "1";
        }

        @Override
        public void stop() {}
    }
}
