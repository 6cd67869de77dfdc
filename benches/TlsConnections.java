import java.io.*;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.clients.admin.*;

/** How many connections a second are made with TLS and SCRAM, and asked one thing each: from four threads of one program. */
public class TlsConnections {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", args[0]);
        settings.put("security.protocol", "SASL_SSL");
        settings.put("sasl.mechanism", "SCRAM-SHA-256");
        settings.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"u\" password=\"secret-of-u\";");
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.location", args[1]);
        int count = Integer.parseInt(args[2]);
        connect(settings, count / 4);
        long start = System.nanoTime();
        connect(settings, count);
        System.out.println(Math.round(count / ((System.nanoTime() - start) / 1e9)));
        Runtime.getRuntime().halt(0);
    }

    static void connect(Map<String, Object> settings, int count) throws Exception {
        var threads = new ArrayList<Thread>();
        for (int t = 0; t < 4; t++) {
            threads.add(new Thread(() -> {
                for (int n = 0; n < count / 4; n++)
                    try (Admin admin = Admin.create(settings)) { admin.describeCluster().nodes().get(); } catch (Exception failure) { throw new RuntimeException(failure); }
            }));
        }
        for (var thread : threads) thread.start();
        for (var thread : threads) thread.join();
    }
}
