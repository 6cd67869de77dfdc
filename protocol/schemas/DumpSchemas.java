import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.CompactArrayOf;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;

/** Prints the shape of every request and response of Kafka's own message classes, a line for each. */
public class DumpSchemas {
    public static void main(String[] args) {
        Set<String> wanted = new HashSet<>(Arrays.asList(args[0].split(" ")));
        for (ApiMessageType api : ApiMessageType.values()) {
            if (!wanted.contains(api.name)) {
                continue;
            }
            print(api, "request", api.requestSchemas());
            print(api, "response", api.responseSchemas());
        }
    }

    /** Consecutive versions with the same shape share a line. */
    static void print(ApiMessageType api, String kind, Schema[] schemas) {
        int first = -1;
        String shape = null;
        for (int version = 0; version <= schemas.length; version++) {
            String next = version < schemas.length && schemas[version] != null ? struct(schemas[version]) : null;
            if (shape != null && !shape.equals(next)) {
                System.out.println(api.apiKey() + " " + kind + " " + first + " " + (version - 1) + " " + shape);
            }
            if (shape == null || !shape.equals(next)) {
                first = version;
            }
            shape = next;
        }
    }

    static String struct(Schema schema) {
        StringBuilder out = new StringBuilder("{");
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields) {
                out.append(tagged((TaggedFields) field.def.type));
            } else {
                out.append(field.def.name).append(':').append(type(field.def.type)).append(',');
            }
        }
        return out.append('}').toString();
    }

    static String tagged(TaggedFields fields) {
        StringBuilder out = new StringBuilder("(");
        for (Map.Entry<Integer, Field> field : new TreeMap<>(fields.fields()).entrySet()) {
            out.append(field.getKey()).append('=').append(field.getValue().name).append(':')
                .append(type(field.getValue().type)).append(',');
        }
        return out.append(')').toString();
    }

    static String type(Type type) {
        String nullable = type.isNullable() ? "?" : "";
        if (type.isArray()) {
            boolean compact = type instanceof CompactArrayOf;
            String element = type(type.arrayElementType().get());
            return nullable + (compact ? "<" + element + ">" : "[" + element + "]");
        }
        if (type instanceof Schema) {
            return nullable + struct((Schema) type);
        }
        return nullable + ((Type.DocumentedType) type).typeName().replace("COMPACT_NULLABLE_", "COMPACT_").replace("NULLABLE_", "");
    }
}
