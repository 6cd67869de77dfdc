import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToIntFunction;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.FindCoordinatorRequestData;
import org.apache.kafka.common.message.FindCoordinatorResponseData;
import org.apache.kafka.common.message.MetadataRequestData;
import org.apache.kafka.common.message.MetadataResponseData;
import org.apache.kafka.common.message.SaslAuthenticateRequestData;
import org.apache.kafka.common.message.SaslAuthenticateResponseData;
import org.apache.kafka.common.message.SaslHandshakeRequestData;
import org.apache.kafka.common.message.SaslHandshakeResponseData;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

/**
 * Requests to the brokers of a cluster, of Kafka's own message classes: the Java client of 4.4.0 has them, but sends none of two
 * phases. What fails for a moment, or finds nobody, is sent again for as long as {@link #PATIENCE_MS}: all requests here may be.
 */
final class Cluster implements AutoCloseable {
    static final long PATIENCE_MS = 15_000;
    private static final int ANSWER_MS_MAX = 5_000;
    private static final int AGAIN_AFTER_MS = 50;
    private static final byte TRANSACTION = 1;

    private final List<InetSocketAddress> bootstrap = new ArrayList<>();
    private final Map<InetSocketAddress, Socket> sockets = new HashMap<>();
    private int correlationId;

    Cluster(String addresses) {
        for (String address : addresses.split(",")) {
            int colon = address.lastIndexOf(':');
            bootstrap.add(new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1))));
        }
    }

    /** A request and where its answer is to go. */
    record Request<T extends ApiMessage>(ApiMessage message, int version, T answer) {}

    /** The broker that a request is for. */
    interface Target {
        InetSocketAddress find() throws IOException;
    }

    /** The answer, once it has no error that goes by. */
    synchronized <T extends ApiMessage> T ask(Target target, Request<T> request, ToIntFunction<T> error) throws IOException {
        long until = System.currentTimeMillis() + PATIENCE_MS;
        while (true) {
            String why;
            try {
                T answer = send(target.find(), request);
                Errors found = Errors.forCode((short) error.applyAsInt(answer));
                if (!(found.exception() instanceof RetriableException)) return answer;
                why = found.name();
            } catch (IOException failed) {
                why = failed.toString();
            }
            if (System.currentTimeMillis() > until) throw new IOException(request.message().getClass().getSimpleName() + ": " + why);
            pause();
        }
    }

    private static void pause() throws IOException {
        try {
            Thread.sleep(AGAIN_AFTER_MS);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new IOException(interrupted);
        }
    }

    /** Who coordinates a transactional id. */
    InetSocketAddress coordinator(String id) throws IOException {
        var request = new FindCoordinatorRequestData().setKeyType(TRANSACTION).setCoordinatorKeys(List.of(id));
        var found = anybody(new Request<>(request, 4, new FindCoordinatorResponseData())).coordinators().get(0);
        check(found.errorCode());
        return new InetSocketAddress(found.host(), found.port());
    }

    InetSocketAddress leader(String topic, int partition) throws IOException {
        var metadata = metadata(List.of(new MetadataRequestData.MetadataRequestTopic().setName(topic)));
        for (var found : metadata.topics().iterator().next().partitions()) {
            if (found.partitionIndex() == partition) {
                check(found.errorCode());
                var broker = metadata.brokers().find(found.leaderId());
                if (broker != null) return new InetSocketAddress(broker.host(), broker.port());
            }
        }
        throw new IOException("no leader of " + topic + "-" + partition);
    }

    synchronized List<InetSocketAddress> brokers() throws IOException {
        List<InetSocketAddress> all = new ArrayList<>();
        metadata(List.of()).brokers().forEach(broker -> all.add(new InetSocketAddress(broker.host(), broker.port())));
        return all;
    }

    private MetadataResponseData metadata(List<MetadataRequestData.MetadataRequestTopic> topics) throws IOException {
        return anybody(new Request<>(new MetadataRequestData().setTopics(topics), 12, new MetadataResponseData()));
    }

    private static void check(short error) throws IOException {
        if (error != 0) throw new IOException(Errors.forCode(error).name());
    }

    private <T extends ApiMessage> T anybody(Request<T> request) throws IOException {
        IOException last = null;
        for (InetSocketAddress address : bootstrap) {
            try {
                return send(address, request);
            } catch (IOException failed) {
                last = failed;
            }
        }
        throw last;
    }

    private <T extends ApiMessage> T send(InetSocketAddress address, Request<T> request) throws IOException {
        try {
            Socket socket = sockets.get(address);
            if (socket == null) {
                socket = Access.socket();
                sockets.put(address, socket);
                socket.setTcpNoDelay(true);
                socket.setSoTimeout(ANSWER_MS_MAX);
                socket.connect(address, ANSWER_MS_MAX);
                if (Access.plain().isPresent()) logIn(socket, Access.plain().get());
            }
            write(socket, request);
            return read(socket, request);
        } catch (IOException failed) {
            Socket socket = sockets.remove(address);
            if (socket != null) socket.close();
            throw failed;
        }
    }

    private void logIn(Socket socket, byte[] token) throws IOException {
        var handshake = new Request<>(new SaslHandshakeRequestData().setMechanism("PLAIN"), 1, new SaslHandshakeResponseData());
        write(socket, handshake);
        check(read(socket, handshake).errorCode());
        var authenticate = new Request<>(new SaslAuthenticateRequestData().setAuthBytes(token), 2, new SaslAuthenticateResponseData());
        write(socket, authenticate);
        check(read(socket, authenticate).errorCode());
    }

    private void write(Socket socket, Request<?> request) throws IOException {
        short version = (short) request.version();
        ApiMessageType api = ApiMessageType.fromApiKey(request.message().apiKey());
        byte[] client = "xa".getBytes(StandardCharsets.UTF_8);
        var cache = new ObjectSerializationCache();
        int tags = api.requestHeaderVersion(version) >= 2 ? 1 : 0;
        ByteBuffer out = ByteBuffer.allocate(4 + 10 + client.length + tags + request.message().size(cache, version));
        out.putInt(out.capacity() - 4).putShort(api.apiKey()).putShort(version).putInt(++correlationId);
        out.putShort((short) client.length).put(client).put(new byte[tags]);
        request.message().write(new ByteBufferAccessor(out), cache, version);
        socket.getOutputStream().write(out.array());
    }

    private <T extends ApiMessage> T read(Socket socket, Request<T> request) throws IOException {
        DataInputStream in = new DataInputStream(socket.getInputStream());
        byte[] bytes = new byte[in.readInt()];
        in.readFully(bytes);
        ByteBuffer frame = ByteBuffer.wrap(bytes);
        if (frame.getInt() != correlationId) throw new IOException("the answer to another request");
        short version = (short) request.version();
        if (ApiMessageType.fromApiKey(request.message().apiKey()).responseHeaderVersion(version) >= 1) frame.get();
        request.answer().read(new ByteBufferAccessor(frame), version);
        return request.answer();
    }

    @Override
    public synchronized void close() {
        for (Socket socket : sockets.values()) {
            try {
                socket.close();
            } catch (IOException failed) {
                // It is gone either way.
            }
        }
        sockets.clear();
    }
}
