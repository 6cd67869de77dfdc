import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.zip.CRC32C;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.internals.BufferSupplier;
import org.apache.kafka.common.utils.internals.ByteBufferOutputStream;
import org.apache.kafka.common.utils.internals.ByteUtils;

/** Record batches of format 2: made, with something wrong in them at times, and read. */
final class Batch implements Wire.Symbol {
    static final int HEADER_BYTES = 61;
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};

    private final List<Long> times = new ArrayList<>();
    private final List<byte[]> keys = new ArrayList<>();
    private final List<byte[]> values = new ArrayList<>();
    private int codec;
    private boolean ofProducer;
    private boolean ofTransaction;
    private long epoch = -1;
    private long sequence = -1;
    private long baseOffset;
    private long leaderEpoch = -1;
    private String wrong = "";

    /** What can be wrong with a batch, and the request is tagged with: `batch:NAME`. */
    private static final String[] WRONG = {
        "crc", "magic-0", "magic-1", "magic-3", "codec-5", "transactional", "control", "count-more", "count-less", "last-delta",
        "length-more", "length-less", "late", "negative-time", "base-offset", "record-offset", "trailing", "record-trailing",
        "two-batches", "no-records", "no-bytes", "null", "cut", "header-null-key", "max-time", "delete-horizon", "log-append-time",
        "attributes-high", "leader-epoch", "large",
    };

    static Batch draw(Random random, long nowMs, boolean keyed, double wrongness, Set<String> tags) {
        Batch batch = new Batch();
        int count = 1 + random.nextInt(3);
        for (int n = 0; n < count; n++) {
            // Whole hours before the present, and so apart from what the broker's clock says.
            batch.times.add(nowMs - 3_600_000L * (1 + random.nextInt(3)) + n);
            boolean hasKey = keyed ? random.nextInt(20) > 0 : random.nextBoolean();
            batch.keys.add(hasKey ? ("k" + random.nextInt(3)).getBytes(StandardCharsets.UTF_8) : null);
            batch.values.add(random.nextInt(5) == 0 ? null : ("value " + random.nextInt(100)).getBytes(StandardCharsets.UTF_8));
        }
        if (random.nextInt(3) == 0) batch.codec = 1 + random.nextInt(4);
        if (random.nextInt(5) == 0) {
            batch.ofProducer = true;
            batch.epoch = random.nextInt(6) == 0 ? 1 : 0;
            batch.sequence = random.nextInt(3) > 0 ? 0 : random.nextInt(4);
            tags.add("batch:producer");
        }
        if (random.nextDouble() < wrongness) {
            batch.wrong = WRONG[random.nextInt(WRONG.length)];
            tags.add("batch:" + batch.wrong);
        }
        return batch;
    }

    /** Of the transaction that the sequence's producer has open, most often: its epoch is what is given here more than the broker gave out. */
    static Batch drawTransactional(Random random, long nowMs, boolean keyed, double wrongness, Set<String> tags) {
        Batch batch = draw(random, nowMs, keyed, wrongness, tags);
        // One of nobody is no part of a transaction, whatever it says.
        batch.ofProducer = random.nextDouble() >= wrongness / 2;
        batch.ofTransaction = random.nextDouble() >= wrongness;
        batch.epoch = random.nextDouble() < wrongness ? random.nextInt(3) - 1 : 0;
        batch.sequence = random.nextInt(3) > 0 ? 0 : random.nextInt(4);
        tags.add("batch:producer");
        return batch;
    }

    @Override
    public String toString() {
        return times.size() + " records, keys " + keys.stream().map(Wire::text).toList() + ", codec " + CODECS[codec] + ", times from " + times.get(0)
            + (ofTransaction ? ", transactional" : "") + (ofProducer ? ", producer's epoch " + epoch + " and sequence " + sequence : "") + (wrong.isEmpty() ? "" : ", wrong: " + wrong);
    }

    @Override
    public Object resolve(Names names) {
        switch (wrong) {
            case "no-bytes": return new byte[0];
            case "null": return null;
            default: break;
        }
        byte[] one = bytes(names);
        ByteBuffer buffer = ByteBuffer.wrap(one);
        switch (wrong) {
            case "crc": one[17] ^= 1; break;
            case "magic-0": one[16] = 0; break;
            case "magic-1": one[16] = 1; break;
            case "magic-3": one[16] = 3; break;
            case "length-more": buffer.putInt(8, one.length - 12 + 1); break;
            case "length-less": buffer.putInt(8, one.length - 12 - 1); break;
            case "cut": return java.util.Arrays.copyOf(one, one.length - 3);
            case "trailing": return java.util.Arrays.copyOf(one, one.length + 5);
            case "two-batches": {
                byte[] two = java.util.Arrays.copyOf(one, 2 * one.length);
                System.arraycopy(one, 0, two, one.length, one.length);
                return two;
            }
            default: break;
        }
        return one;
    }

    private byte[] bytes(Names names) {
        int count = wrong.equals("no-records") ? 0 : times.size();
        long hours = wrong.equals("late") ? 24 * 3_600_000L : 0;
        long base = wrong.equals("negative-time") ? -5 : times.get(0) + hours;
        ByteBuffer records = ByteBuffer.allocate(8 << 20);
        long newest = base;
        for (int n = 0; n < count; n++) {
            long delta = wrong.equals("negative-time") ? 0 : times.get(n) - times.get(0);
            newest = Math.max(newest, base + delta);
            record(records, n, delta);
        }
        byte[] packed = pack(records.flip());
        ByteBuffer out = ByteBuffer.allocate(HEADER_BYTES + packed.length);
        int attributes = codec | (ofTransaction ? 16 : 0);
        switch (wrong) {
            case "codec-5": attributes = 5; break;
            case "transactional": attributes |= 16; break;
            case "control": attributes |= 32; break;
            case "delete-horizon": attributes |= 64; break;
            case "log-append-time": attributes |= 8; break;
            case "attributes-high": attributes |= 1 << 9; break;
            case "max-time": newest += 1000; break;
            default: break;
        }
        int told = wrong.equals("count-more") ? count + 1 : wrong.equals("count-less") ? count - 1 : count;
        out.putLong(wrong.equals("base-offset") ? 7 : baseOffset).putInt(out.capacity() - 12);
        out.putInt(wrong.equals("leader-epoch") ? 3 : (int) leaderEpoch).put((byte) 2).putInt(0).putShort((short) attributes);
        out.putInt(wrong.equals("last-delta") ? count + 1 : count - 1).putLong(base).putLong(newest);
        out.putLong(ofProducer ? names.producer() : -1).putShort((short) (ofTransaction ? names.epoch() + epoch : epoch)).putInt((int) sequence).putInt(told).put(packed);
        CRC32C crc = new CRC32C();
        crc.update(out.array(), 21, out.capacity() - 21);
        out.putInt(17, (int) crc.getValue());
        return out.array();
    }

    private void record(ByteBuffer out, int number, long timeDelta) {
        ByteBuffer record = ByteBuffer.allocate(4 << 20);
        record.put((byte) 0);
        ByteUtils.writeVarlong(timeDelta, record);
        ByteUtils.writeVarint(wrong.equals("record-offset") ? number + 1 : number, record);
        bytes(record, keys.get(number));
        bytes(record, wrong.equals("large") && number == 0 ? new byte[1_200_000] : values.get(number));
        boolean header = wrong.equals("header-null-key");
        ByteUtils.writeVarint(header ? 1 : 0, record);
        if (header) ByteUtils.writeVarint(-1, record);
        if (header) ByteUtils.writeVarint(-1, record);
        if (wrong.equals("record-trailing")) record.put((byte) 0);
        record.flip();
        ByteUtils.writeVarint(record.remaining(), out);
        out.put(record);
    }

    private static void bytes(ByteBuffer out, byte[] bytes) {
        ByteUtils.writeVarint(bytes == null ? -1 : bytes.length, out);
        if (bytes != null) out.put(bytes);
    }

    private byte[] pack(ByteBuffer records) {
        byte[] plain = new byte[records.remaining()];
        records.get(plain);
        if (codec == 0) return plain;
        ByteBufferOutputStream out = new ByteBufferOutputStream(plain.length + 512);
        try (OutputStream packing = compression(codec).wrapForOutput(out, (byte) 2)) {
            packing.write(plain);
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
        ByteBuffer packed = out.buffer().flip();
        byte[] bytes = new byte[packed.remaining()];
        packed.get(bytes);
        return bytes;
    }

    private static Compression compression(int codec) {
        return switch (codec) {
            case 1 -> Compression.gzip().build();
            case 2 -> Compression.snappy().build();
            case 3 -> Compression.lz4().build();
            default -> Compression.zstd().build();
        };
    }

    /** The whole batches of a fetch as trees; a last one that is cut is left out, as clients do. */
    static List<Object> read(byte[] bytes) {
        List<Object> batches = new ArrayList<>();
        ByteBuffer in = ByteBuffer.wrap(bytes);
        int at = 0;
        while (bytes.length - at >= HEADER_BYTES && bytes.length - at >= 12 + in.getInt(at + 8)) {
            int length = 12 + in.getInt(at + 8);
            batches.add(header(in.slice(at, length)));
            at += length;
        }
        if (batches.isEmpty() && bytes.length > 0) batches.add("a part of a batch");
        return batches;
    }

    private static Map<String, Object> header(ByteBuffer in) {
        Map<String, Object> tree = new LinkedHashMap<>();
        int attributes = in.getShort(21);
        tree.put("base_offset", in.getLong(0));
        tree.put("leader_epoch", (long) in.getInt(12));
        tree.put("magic", (long) in.get(16));
        tree.put("codec", (attributes & 7) < 5 ? CODECS[attributes & 7] : "codec " + (attributes & 7));
        tree.put("attributes", (long) (attributes & ~7));
        tree.put("last_offset_delta", (long) in.getInt(23));
        tree.put("base_timestamp", in.getLong(27));
        tree.put("max_timestamp", in.getLong(35));
        tree.put("producer_id", in.getLong(43));
        tree.put("producer_epoch", (long) in.getShort(51));
        tree.put("base_sequence", (long) in.getInt(53));
        tree.put("count", (long) in.getInt(57));
        CRC32C crc = new CRC32C();
        crc.update(in.slice(21, in.capacity() - 21));
        tree.put("crc", (int) crc.getValue() == in.getInt(17) ? "right" : "wrong");
        Object records = unpacked(in, attributes & 7);
        // A marker ends with the epoch of its coordinator, which begins at another number at each broker, and the number of headers.
        if ((attributes & 32) != 0 && records instanceof byte[] bytes && bytes.length > 5) java.util.Arrays.fill(bytes, bytes.length - 5, bytes.length - 1, (byte) 0);
        tree.put("records_bytes", records);
        return tree;
    }

    private static Object unpacked(ByteBuffer in, int codec) {
        ByteBuffer packed = in.slice(HEADER_BYTES, in.capacity() - HEADER_BYTES);
        if (codec == 0 || codec > 4) {
            byte[] bytes = new byte[packed.remaining()];
            packed.get(bytes);
            return bytes;
        }
        try (InputStream plain = compression(codec).wrapForInput(packed, (byte) 2, BufferSupplier.NO_CACHING)) {
            return plain.readAllBytes();
        } catch (IOException | RuntimeException error) {
            return "not readable: " + error.getMessage();
        }
    }
}
