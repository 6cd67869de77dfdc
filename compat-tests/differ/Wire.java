import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.CompactArrayOf;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.NullableSchema;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.utils.internals.ByteUtils;

/**
 * Trees to bytes and back by Kafka's own message schemas. A tree is made of maps (structs, tagged fields among the
 * others under their names), lists, Long, Boolean, Double, String, Uuid, byte[] and null; what is to be written may
 * also hold a {@link Symbol}, which stands for something else at each broker.
 */
final class Wire {
    /** What a broker has given out, and a request refers to: resolved for each broker when the request is written. */
    interface Symbol {
        Object resolve(Names names);
    }

    static void write(Type type, Object given, ByteBuffer out, Names names) {
        Object value = given instanceof Symbol symbol ? symbol.resolve(names) : given;
        if (type instanceof Schema schema) {
            if (schema instanceof NullableSchema) {
                out.put((byte) (value == null ? -1 : 1));
                if (value == null) return;
            }
            writeFields(schema, tree(value), out, names);
        } else if (type.isArray()) {
            List<?> list = (List<?>) value;
            boolean compact = type instanceof CompactArrayOf;
            if (compact) ByteUtils.writeUnsignedVarint(list == null ? 0 : list.size() + 1, out);
            else out.putInt(list == null ? -1 : list.size());
            if (list != null) for (Object element : list) write(type.arrayElementType().get(), element, out, names);
        } else {
            leaf(type).write(out, toLeaf(type, value));
        }
    }

    private static void writeFields(Schema schema, Map<String, Object> tree, ByteBuffer out, Names names) {
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields tagged) {
                Map<Integer, Field> present = new TreeMap<>(tagged.fields());
                present.values().removeIf(one -> !tree.containsKey(one.name));
                ByteUtils.writeUnsignedVarint(present.size(), out);
                present.forEach((tag, one) -> {
                    ByteBuffer inner = ByteBuffer.allocate(1 << 16);
                    write(one.type, tree.get(one.name), inner, names);
                    inner.flip();
                    ByteUtils.writeUnsignedVarint(tag, out);
                    ByteUtils.writeUnsignedVarint(inner.remaining(), out);
                    out.put(inner);
                });
            } else {
                if (!tree.containsKey(field.def.name)) throw new IllegalStateException("no " + field.def.name);
                write(field.def.type, tree.get(field.def.name), out, names);
            }
        }
    }

    static Object read(Type type, ByteBuffer in) {
        if (type instanceof Schema schema) {
            if (schema instanceof NullableSchema && in.get() < 0) return null;
            return readFields(schema, in);
        }
        if (type.isArray()) {
            int length = type instanceof CompactArrayOf ? ByteUtils.readUnsignedVarint(in) - 1 : in.getInt();
            if (length < 0) return null;
            if (length > in.remaining()) throw new IllegalStateException("an array of " + length);
            List<Object> list = new ArrayList<>(length);
            for (int n = 0; n < length; n++) list.add(read(type.arrayElementType().get(), in));
            return list;
        }
        return fromLeaf(leaf(type).read(in));
    }

    private static Map<String, Object> readFields(Schema schema, ByteBuffer in) {
        Map<String, Object> tree = new LinkedHashMap<>();
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields tagged) {
                for (int left = ByteUtils.readUnsignedVarint(in); left > 0; left--) {
                    int tag = ByteUtils.readUnsignedVarint(in);
                    int size = ByteUtils.readUnsignedVarint(in);
                    ByteBuffer inner = in.slice(in.position(), size);
                    in.position(in.position() + size);
                    Field one = tagged.fields().get(tag);
                    if (one == null) tree.put("tag" + tag, size + " bytes");
                    else tree.put(one.name, read(one.type, inner));
                    if (one != null && inner.hasRemaining()) tree.put(one.name + "_trailing", (long) inner.remaining());
                }
            } else {
                tree.put(field.def.name, read(field.def.type, in));
            }
        }
        return tree;
    }

    /** Records are bytes here: they are made and read by {@link Batch}. */
    private static Type leaf(Type type) {
        return switch (type.toString()) {
            case "RECORDS", "NULLABLE_RECORDS" -> Type.NULLABLE_BYTES;
            case "COMPACT_RECORDS", "COMPACT_NULLABLE_RECORDS" -> Type.COMPACT_NULLABLE_BYTES;
            default -> type;
        };
    }

    private static Object toLeaf(Type type, Object value) {
        if (value instanceof byte[] bytes) return ByteBuffer.wrap(bytes);
        // A name that was looked for and is not there.
        if (value == null && type.toString().endsWith("STRING") && !type.isNullable()) return "";
        if (!(value instanceof Number number)) return value;
        return switch (type.toString()) {
            case "INT8" -> number.byteValue();
            case "INT16" -> number.shortValue();
            case "INT32", "UINT16" -> number.intValue();
            case "FLOAT64" -> number.doubleValue();
            default -> number.longValue();
        };
    }

    private static Object fromLeaf(Object value) {
        if (value instanceof ByteBuffer buffer) {
            byte[] bytes = new byte[buffer.remaining()];
            buffer.duplicate().get(bytes);
            return bytes;
        }
        if (value instanceof Double || !(value instanceof Number number)) return value;
        return number.longValue();
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> tree(Object value) {
        return (Map<String, Object>) value;
    }

    static void print(Object value, String indent, StringBuilder out) {
        if (value instanceof Map<?, ?> map) {
            out.append('{');
            map.forEach((name, inner) -> {
                out.append('\n').append(indent).append("  ").append(name).append(": ");
                print(inner, indent + "  ", out);
            });
            out.append(map.isEmpty() ? "}" : "\n" + indent + "}");
        } else if (value instanceof List<?> list) {
            out.append('[');
            boolean flat = list.stream().noneMatch(one -> one instanceof Map);
            for (Object inner : list) {
                out.append(flat ? out.charAt(out.length() - 1) == '[' ? "" : ", " : "\n" + indent + "  ");
                print(inner, indent + "  ", out);
            }
            out.append(flat ? "]" : "\n" + indent + "]");
        } else {
            out.append(text(value));
        }
    }

    /** A leaf as the reports and the list of allowed differences write it. */
    static String text(Object value) {
        if (value instanceof byte[] bytes) {
            StringBuilder hex = new StringBuilder("0x");
            for (int n = 0; n < Math.min(bytes.length, 40); n++) hex.append(String.format("%02x", bytes[n]));
            return bytes.length > 40 ? hex + "… (" + bytes.length + " bytes)" : hex.toString();
        }
        if (value instanceof String string) {
            return '"' + (string.length() > 300 ? string.substring(0, 40) + "… (" + string.length() + ")" : string) + '"';
        }
        return String.valueOf(value);
    }
}
