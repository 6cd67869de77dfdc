import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.NavigableMap;
import java.util.Random;
import java.util.TreeMap;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.Struct;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;

/**
 * Prints what Kafka's own message classes write: messages with random values of the APIs that are named, in every version, a
 * line for each: API key, request or response, version, bytes. The values follow from the seeds, so the lines are always the same.
 */
public class GoldenMessages {
    static final int SEEDS = 3;

    static Random random;

    public static void main(String[] args) {
        for (String name : args[0].split(" ")) {
            ApiMessageType api = ApiMessageType.valueOf(name.replaceAll("(?<=[a-z])(?=[A-Z])", "_").toUpperCase());
            print(api, true, api.requestSchemas());
            print(api, false, api.responseSchemas());
        }
    }

    static void print(ApiMessageType api, boolean isRequest, Schema[] schemas) {
        String kind = isRequest ? "request" : "response";
        for (short version = 0; version < schemas.length; version++) {
            for (int seed = 0; schemas[version] != null && seed < SEEDS; seed++) {
                random = new Random(api.apiKey() * 10_000L + version * 100L + seed * 2L + (isRequest ? 0 : 1));
                ApiMessage message = isRequest ? api.newRequest() : api.newResponse();
                Struct values = struct(schemas[version]);
                ByteBuffer buffer = ByteBuffer.allocate(schemas[version].sizeOf(values));
                schemas[version].write(buffer, values);
                buffer.flip();
                message.read(new ByteBufferAccessor(buffer), version);
                System.out.println(api.apiKey() + " " + kind + " " + version + " " + HexFormat.of().formatHex(bytes(message, version)));
            }
        }
    }

    static byte[] bytes(ApiMessage message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        return buffer.array();
    }

    static Struct struct(Schema schema) {
        Struct struct = new Struct(schema);
        for (BoundField field : schema.fields()) {
            struct.set(field, field.def.type instanceof TaggedFields ? tagged((TaggedFields) field.def.type) : value(field.def.type));
        }
        return struct;
    }

    /** Some of the known ones, and in every third struct one that is not known. */
    static NavigableMap<Integer, Object> tagged(TaggedFields fields) {
        NavigableMap<Integer, Object> values = new TreeMap<>();
        for (var field : fields.fields().entrySet()) {
            if (random.nextBoolean()) {
                values.put(field.getKey(), value(field.getValue().type));
            }
        }
        if (random.nextInt(3) == 0) {
            values.put(9000, new RawTaggedField(9000, new byte[] {1, 2}));
        }
        return values;
    }

    static Object value(Type type) {
        if (type.isNullable() && random.nextInt(4) == 0) {
            return null;
        }
        if (type.isArray()) {
            Object[] elements = new Object[random.nextInt(3)];
            for (int at = 0; at < elements.length; at++) {
                elements[at] = value(type.arrayElementType().get());
            }
            return elements;
        }
        if (type instanceof Schema) {
            return struct((Schema) type);
        }
        String name = ((Type.DocumentedType) type).typeName().replace("COMPACT_", "").replace("NULLABLE_", "");
        switch (name) {
            case "BOOLEAN": return random.nextBoolean();
            case "INT8": return (byte) random.nextInt();
            case "INT16": return (short) random.nextInt();
            case "UINT16": return random.nextInt(65_536);
            case "INT32": return random.nextInt();
            case "INT64": return random.nextLong();
            case "UUID": return new Uuid(random.nextLong(), random.nextLong());
            case "STRING": return text();
            case "BYTES": return ByteBuffer.wrap(text().getBytes());
            case "RECORDS": return MemoryRecords.readableRecords(ByteBuffer.wrap(text().getBytes()));
            default: throw new IllegalArgumentException(name);
        }
    }

    static String text() {
        return "é🚀xyz0123456789".substring(0, 3 + random.nextInt(10));
    }
}
