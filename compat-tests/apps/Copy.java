import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** Copies a topic. */
public class Copy {
    public static void main(String[] arguments) throws Exception {
        var config = new Configuration();
        config.setString("execution.checkpointing.interval", "500ms");
        config.setString("execution.checkpointing.dir", "file://" + arguments[0]);
        config.setString("restart-strategy.type", "fixed-delay");
        config.setString("restart-strategy.fixed-delay.attempts", "1000");
        config.setString("restart-strategy.fixed-delay.delay", "1s");
        config.setString("taskmanager.memory.network.max", "32m");
        config.setString("taskmanager.memory.managed.size", "16m");
        var access = new Properties();
        access.putAll(Access.config());
        var environment = StreamExecutionEnvironment.getExecutionEnvironment(config);
        environment.setParallelism(2);
        var source = KafkaSource.<String>builder()
            .setProperties(access)
            .setTopics("flink-in")
            .setGroupId("flink")
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new SimpleStringSchema())
            .build();
        var sink = KafkaSink.<String>builder()
            .setKafkaProducerConfig(access)
            .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .setRecordSerializer(KafkaRecordSerializationSchema.builder()
                .setTopic("flink-out")
                .setValueSerializationSchema(new SimpleStringSchema())
                .build())
            .build();
        environment.fromSource(source, WatermarkStrategy.noWatermarks(), "in").sinkTo(sink);
        environment.execute("copy");
    }
}
