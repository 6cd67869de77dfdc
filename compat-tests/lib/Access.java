import java.io.*;
import java.net.Socket;
import java.nio.file.*;
import java.security.*;
import java.security.cert.CertificateFactory;
import java.util.*;
import javax.net.ssl.*;

/**
 * How Java clients come to the broker of a suite: its address, BOOTSTRAP, and where it takes nobody who is not known what the file
 * CLIENT_PROPERTIES says.
 */
public class Access {
    private static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    private static final String FILE = System.getenv("CLIENT_PROPERTIES"), USER = System.getenv("CLIENT_USER"), PASSWORD = System.getenv("CLIENT_PASSWORD");

    /** A client's configuration: how it comes in, and more as name, value, name, value. */
    public static Map<String, Object> config(Object... more) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", BOOTSTRAP);
        if (FILE != null) read(FILE).forEach((name, value) -> config.put((String) name, value));
        for (int n = 0; n < more.length; n += 2) config.put((String) more[n], more[n + 1]);
        return config;
    }

    private static Properties read(String file) {
        Properties properties = new Properties();
        try (InputStream in = Files.newInputStream(Path.of(file))) {
            properties.load(in);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return properties;
    }

    /** The options by which a tool of Kafka's comes in, and more. */
    public static List<String> options(String... more) {
        List<String> options = new ArrayList<>(List.of("--bootstrap-server", BOOTSTRAP));
        if (FILE != null) options.addAll(List.of("--command-config", FILE));
        options.addAll(List.of(more));
        return options;
    }

    /** A socket, not connected, for what speaks Kafka's protocol by itself: of TLS where the broker asks for that. */
    public static Socket socket() throws IOException {
        if (FILE == null) return new Socket();
        try (InputStream authority = Files.newInputStream(Path.of(System.getenv("CLIENT_CA")))) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            store.setCertificateEntry("authority", CertificateFactory.getInstance("X.509").generateCertificate(authority));
            TrustManagerFactory trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trusted.init(store);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trusted.getTrustManagers(), null);
            return context.getSocketFactory().createSocket();
        } catch (GeneralSecurityException error) {
            throw new IOException(error);
        }
    }

    /** What such a client authenticates with, by the mechanism PLAIN; empty where the broker asks nobody. */
    public static Optional<byte[]> plain() {
        return FILE == null ? Optional.empty() : Optional.of(("\0" + USER + "\0" + PASSWORD).getBytes());
    }

    /** What a page of the dashboard asks for, as the value of Authorization; empty where it asks nobody. */
    public static Optional<String> basic() {
        return FILE == null ? Optional.empty() : Optional.of("Basic " + Base64.getEncoder().encodeToString((USER + ":" + PASSWORD).getBytes()));
    }
}
