import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.common.message.ApiMessageType;

/** A connection to one broker, opened when it is needed: whole requests, and whatever comes of them. */
final class Link implements AutoCloseable {
    static final String CLIENT_ID = "differ";
    private static final int ANSWER_MS_MAX = 8_000;

    private final InetSocketAddress address;
    /** Where the connection comes from, if that is not left to the system. */
    private final String from;
    private Socket socket;
    private int correlationId;

    Link(String address, String from) {
        this.from = from;
        int colon = address.lastIndexOf(':');
        this.address = new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
    }

    /** What came of a request: a tree, or a text that says why there is none. */
    record Outcome(Object tree) {
        boolean answered() {
            return tree instanceof Map;
        }
    }

    /** The tags `frame:longer` and `frame:cut` are about the frame: bytes after the request, or its last one missing. */
    void send(Plan.Step step, Names names) throws IOException {
        ApiMessageType api = step.api();
        ByteBuffer out = ByteBuffer.allocate(4 << 20);
        out.putInt(0);
        header(out, api.apiKey(), step.version(), api.requestHeaderVersion(step.schema()));
        Wire.write(api.requestSchemas()[step.schema()], step.tree(), out, names);
        if (step.tags().contains("frame:longer")) out.put(new byte[3]);
        if (step.tags().contains("frame:cut")) out.position(out.position() - 1);
        write(out);
    }

    private void header(ByteBuffer out, short key, short version, short headerVersion) {
        byte[] client = CLIENT_ID.getBytes(StandardCharsets.UTF_8);
        out.putShort(key).putShort(version).putInt(++correlationId).putShort((short) client.length).put(client);
        if (headerVersion >= 2) out.put((byte) 0);
    }

    private void write(ByteBuffer out) throws IOException {
        out.putInt(0, out.position() - 4);
        if (socket == null) {
            socket = new Socket();
            socket.setTcpNoDelay(true);
            if (from != null) socket.bind(new InetSocketAddress(from, 0));
            socket.connect(address, 5_000);
            socket.setSoTimeout(ANSWER_MS_MAX);
        }
        try {
            socket.getOutputStream().write(out.array(), 0, out.position());
        } catch (IOException error) {
            // The answer, or the end of the connection, may be there to be read.
        }
    }

    Outcome receive(ApiMessageType api, short version) throws IOException {
        try {
            ByteBuffer frame = frame();
            if (frame.getInt() != correlationId) return ended("another correlation id");
            try {
                if (api.responseHeaderVersion(version) >= 1 && frame.get() != 0) return ended("a header with tags");
                Object tree = Wire.read(api.responseSchemas()[version], frame);
                return frame.hasRemaining() ? ended("bytes after the answer: " + frame.remaining()) : new Outcome(tree);
            } catch (RuntimeException error) {
                return ended("not readable: " + error);
            }
        } catch (SocketTimeoutException error) {
            return ended("no answer");
        } catch (IOException error) {
            return ended("closed");
        }
    }

    /** After a request that is not answered: whether the connection lives, which the next answer shows. */
    Outcome silence() throws IOException {
        ByteBuffer out = ByteBuffer.allocate(64);
        out.putInt(0);
        header(out, (short) 18, (short) 0, (short) 1);
        write(out);
        try {
            return frame().getInt() == correlationId ? new Outcome("silence") : ended("answered");
        } catch (IOException error) {
            return ended("closed");
        }
    }

    private ByteBuffer frame() throws IOException {
        DataInputStream in = new DataInputStream(socket.getInputStream());
        byte[] bytes = new byte[in.readInt()];
        in.readFully(bytes);
        return ByteBuffer.wrap(bytes);
    }

    private Outcome ended(String why) {
        close();
        return new Outcome(why);
    }

    @Override
    public void close() {
        try {
            if (socket != null) socket.close();
        } catch (IOException error) {
            // It is gone either way.
        }
        socket = null;
    }
}
