import java.io.*;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.security.token.delegation.DelegationToken;
import org.apache.kafka.common.serialization.*;

/** Kafka's own client: every mechanism over both protocols, a certificate, and what happens to a connection whose user, certificate or time is gone. */
public class Security {
    static final Map<String, String> ENV = System.getenv();
    static final String TOPIC = ENV.get("TOPIC"), USER = ENV.get("USER_NAME"), PASSWORD = ENV.get("USER_PASSWORD"), DIR = ENV.get("SECURITY");
    static final String RUN = UUID.randomUUID().toString().substring(0, 8);
    static final int COUNT = 200;

    interface Test { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        System.out.println("CLIENT kafka-clients|4.4.0|Java|every mechanism over TLS and without, certificates, delegation tokens, wrong passwords, authenticating again under load, users, tokens and certificates that change|security/java-");
        for (String protocol : List.of("SASL_SSL", "SASL_PLAINTEXT")) {
            for (String mechanism : List.of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")) {
                test(protocol + "-" + mechanism, () -> works(settings(protocol, mechanism, USER, PASSWORD)));
                test(protocol + "-" + mechanism + "-wrong", () -> refused(settings(protocol, mechanism, USER, "wrong"), SaslAuthenticationException.class));
            }
        }
        test("SASL_SSL-OAUTHBEARER", () -> works(token("alice")));
        test("SASL_SSL-OAUTHBEARER-wrong", () -> refused(token("wrong"), SaslAuthenticationException.class));
        test("SSL", () -> works(certificate("alice")));
        test("SSL-without-certificate", () -> refused(certificate(null), SslAuthenticationException.class));
        test("mechanism-that-is-not-enabled", Security::unsupported);
        test("no-right", Security::no_right);
        for (String protocol : List.of("SASL_SSL", "SASL_PLAINTEXT"))
            for (String mechanism : List.of("SCRAM-SHA-256", "SCRAM-SHA-512"))
                test("token-" + protocol + "-" + mechanism, () -> with_token(protocol, mechanism));
        test("token-wrong", Security::wrong_token);
        test("token-authenticates-again-under-load", Security::token_again);
        test("token-not-renewed", Security::token_over);
        test("token-removed-while-connected", Security::removed_token);
        test("user-removed-while-connected", Security::removed_user);
        test("right-removed-while-connected", Security::removed_right);
        test("authenticates-again-under-load", Security::again);
        test("certificate-that-is-over", Security::over);
        test("certificate-replaced-under-load", Security::replaced);
        test("broker-killed-under-load", Security::killed);
        Runtime.getRuntime().halt(0);
    }

    static void test(String name, Test test) {
        long start = System.currentTimeMillis();
        try {
            test.run();
            System.out.println("PASS security/java-" + name);
        } catch (Throwable failure) {
            failure.printStackTrace();
            String text = failure.toString().replaceAll("\\s+", " ");
            System.out.println("FAIL security/java-" + name + ": " + text.substring(0, Math.min(500, text.length())));
        }
        System.err.println("security/java-" + name + " took " + (System.currentTimeMillis() - start) + " ms");
    }

    static void check(boolean holds, Object what) { if (!holds) throw new AssertionError(String.valueOf(what)); }

    static Map<String, Object> settings(String protocol, String mechanism, String user, String password) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", protocol.equals("SASL_SSL") ? ENV.get("BOOTSTRAP") : ENV.get(protocol));
        all.put("security.protocol", protocol);
        all.put("sasl.mechanism", mechanism);
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        all.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + " required username=\"" + user + "\" password=\"" + password + "\";");
        all.put("ssl.truststore.type", "PEM");
        all.put("ssl.truststore.location", DIR + "/ca.pem");
        all.put("default.api.timeout.ms", 20000);
        all.put("request.timeout.ms", 10000);
        return all;
    }

    /** With a token of an identity provider, from a file. */
    static Map<String, Object> token(String name) {
        String url = "file://" + DIR + "/" + name + ".jwt";
        System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", "file://" + DIR + "/alice.jwt,file://" + DIR + "/wrong.jwt");
        System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.files", DIR + "/alice.jwt," + DIR + "/wrong.jwt");
        Map<String, Object> all = settings("SASL_SSL", "OAUTHBEARER", "", "");
        all.put("sasl.jaas.config", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;");
        all.put("sasl.login.callback.handler.class", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler");
        all.put("sasl.oauthbearer.token.endpoint.url", url);
        return all;
    }

    static Map<String, Object> certificate(String name) {
        Map<String, Object> all = settings("SSL", "PLAIN", "", "");
        all.keySet().removeIf(key -> key.startsWith("sasl."));
        if (name != null) {
            all.put("ssl.keystore.type", "PEM");
            all.put("ssl.keystore.location", DIR + "/" + name + "-both.pem");
        }
        return all;
    }

    static Producer<String, String> producer(Map<String, Object> settings) {
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    static Admin admin() { return Admin.create(settings("SASL_SSL", "SCRAM-SHA-512", "admin", ENV.get("ADMIN_PASSWORD"))); }

    /** Records that begin so, each once. */
    static Set<String> read(Map<String, Object> settings, String mark, int count) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("group.id", "g-" + UUID.randomUUID());
        all.put("auto.offset.reset", "earliest");
        Set<String> seen = new HashSet<>();
        try (var consumer = new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(TOPIC));
            long until = System.currentTimeMillis() + 30_000;
            while (seen.size() < count && System.currentTimeMillis() < until)
                for (var record : consumer.poll(Duration.ofMillis(200))) if (record.value().startsWith(mark + " ")) seen.add(record.value());
        }
        return seen;
    }

    static void works(Map<String, Object> settings) throws Exception {
        String mark = "java-" + UUID.randomUUID();
        try (var producer = producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = 0; n < COUNT; n++) sent.add(producer.send(new ProducerRecord<>(TOPIC, mark + " " + n)));
            for (var one : sent) one.get(30, TimeUnit.SECONDS);
        }
        check(read(settings, mark, COUNT).size() == COUNT, "records are missing");
    }

    static void refused(Map<String, Object> settings, Class<?> expected) throws Exception {
        try (var admin = Admin.create(settings)) {
            admin.listTopics().names().get();
            throw new AssertionError("not refused");
        } catch (ExecutionException failure) {
            check(expected.isInstance(failure.getCause()), failure.getCause());
        }
    }

    static void unsupported() throws Exception {
        Map<String, Object> all = settings("SASL_PLAINTEXT", "SCRAM-SHA-512", USER, PASSWORD);
        all.put("sasl.mechanism", "OAUTHBEARER");
        all.put("sasl.jaas.config", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"alice\";");
        refused(all, UnsupportedSaslMechanismException.class);
    }

    static void no_right() throws Exception {
        try (var producer = producer(settings("SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD))) {
            producer.send(new ProducerRecord<>("of-nobody", "x")).get(20, TimeUnit.SECONDS);
            throw new AssertionError("taken");
        } catch (ExecutionException failure) {
            check(failure.getCause() instanceof TopicAuthorizationException, failure.getCause());
        }
    }

    static void user(Admin admin, String name, String password) throws Exception {
        var info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096);
        admin.alterUserScramCredentials(List.of(password == null ? new UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_256) : new UserScramCredentialUpsertion(name, info, password))).all().get();
    }

    static void removed_user() throws Exception {
        try (var admin = admin()) {
            user(admin, "dora", "doras-secret");
            var settings = settings("SASL_SSL", "SCRAM-SHA-256", "dora", "doras-secret");
            settings.put("reconnect.backoff.max.ms", 100);
            // It is known on all brokers once it can log in.
            try (var dora = Admin.create(settings)) {
                eventually(() -> { dora.describeCluster().nodes().get(); return true; });
                user(admin, "dora", null);
                eventually(() -> {
                    try { dora.describeCluster().nodes().get(); return false; }
                    catch (ExecutionException failure) { return failure.getCause() instanceof SaslAuthenticationException; }
                });
            }
        }
    }

    static void removed_right() throws Exception {
        var pattern = new org.apache.kafka.common.resource.ResourcePattern(org.apache.kafka.common.resource.ResourceType.TOPIC, "right-" + RUN, org.apache.kafka.common.resource.PatternType.LITERAL);
        var entry = new org.apache.kafka.common.acl.AccessControlEntry("User:" + USER, "*", org.apache.kafka.common.acl.AclOperation.WRITE, org.apache.kafka.common.acl.AclPermissionType.ALLOW);
        var binding = new org.apache.kafka.common.acl.AclBinding(pattern, entry);
        try (var admin = admin(); var producer = producer(settings("SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD))) {
            admin.createTopics(List.of(new NewTopic(pattern.name(), 1, (short) 3))).all().get();
            admin.createAcls(List.of(binding)).all().get();
            eventually(() -> { producer.send(new ProducerRecord<>(pattern.name(), "x")).get(); return true; });
            admin.deleteAcls(List.of(binding.toFilter())).all().get();
            eventually(() -> {
                try { producer.send(new ProducerRecord<>(pattern.name(), "x")).get(); return false; }
                catch (ExecutionException failure) { return failure.getCause() instanceof TopicAuthorizationException; }
            });
        }
    }

    static Map<String, Object> settings(String protocol, String mechanism, DelegationToken token) {
        Map<String, Object> all = settings(protocol, mechanism, token.tokenInfo().tokenId(), token.hmacAsBase64String());
        all.put("sasl.jaas.config", all.get("sasl.jaas.config").toString().replace(";", " tokenauth=\"true\";"));
        all.put("reconnect.backoff.max.ms", 100);
        return all;
    }

    /** A token of the user's own, once all brokers know it. */
    static DelegationToken token(long lifetime_ms) throws Exception {
        try (var admin = Admin.create(settings("SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD))) {
            var token = admin.createDelegationToken(new CreateDelegationTokenOptions().maxLifetimeMs(lifetime_ms)).delegationToken().get();
            check(token.tokenInfo().owner().getName().equals(USER), token);
            for (String server : ENV.get("BOOTSTRAP").split(",")) {
                var one = settings("SASL_SSL", "SCRAM-SHA-256", token);
                one.put("bootstrap.servers", server);
                eventually(() -> { try (var bearer = Admin.create(one)) { bearer.describeCluster().nodes().get(); return true; } });
            }
            return token;
        }
    }

    static void with_token(String protocol, String mechanism) throws Exception { works(settings(protocol, mechanism, token(-1))); }

    static void wrong_token() throws Exception {
        var token = token(-1);
        for (String mechanism : List.of("SCRAM-SHA-256", "SCRAM-SHA-512")) {
            var wrong = settings("SASL_SSL", mechanism, token);
            wrong.put("sasl.jaas.config", wrong.get("sasl.jaas.config").toString().replace(token.hmacAsBase64String(), "AAAA"));
            refused(wrong, SaslAuthenticationException.class);
            // The user is no token, and the token no user.
            var user = settings("SASL_SSL", mechanism, USER, PASSWORD);
            user.put("sasl.jaas.config", user.get("sasl.jaas.config").toString().replace(";", " tokenauth=\"true\";"));
            refused(user, SaslAuthenticationException.class);
            refused(settings("SASL_SSL", mechanism, token.tokenInfo().tokenId(), token.hmacAsBase64String()), SaslAuthenticationException.class);
        }
    }

    /** Good for three seconds at a time, and renewed each second. */
    static void token_again() throws Exception {
        var token = token(60_000);
        try (var admin = Admin.create(settings("SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD))) {
            under_load(settings("SASL_SSL", "SCRAM-SHA-512", token), 9, () -> {
                for (int n = 0; n < 8; n++) {
                    long until = admin.renewDelegationToken(token.hmac(), new RenewDelegationTokenOptions().renewTimePeriodMs(3000)).expiryTimestamp().get();
                    check(until <= System.currentTimeMillis() + 3000, until);
                    Thread.sleep(1000);
                }
                admin.renewDelegationToken(token.hmac(), new RenewDelegationTokenOptions().renewTimePeriodMs(30_000)).expiryTimestamp().get();
            });
        }
    }

    static void ends(DelegationToken token, Test how) throws Exception {
        try (var bearer = Admin.create(settings("SASL_SSL", "SCRAM-SHA-512", token))) {
            bearer.describeCluster().nodes().get();
            how.run();
            eventually(() -> {
                try { bearer.describeCluster().nodes().get(); return false; }
                catch (ExecutionException failure) { return failure.getCause() instanceof SaslAuthenticationException; }
            });
        }
    }

    static void token_over() throws Exception { ends(token(4000), () -> {}); }

    static void removed_token() throws Exception {
        var token = token(-1);
        try (var admin = Admin.create(settings("SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD))) {
            ends(token, () -> admin.expireDelegationToken(token.hmac(), new ExpireDelegationTokenOptions().expiryTimePeriodMs(-1)).expiryTimestamp().get());
            check(admin.describeDelegationToken().delegationTokens().get().stream().noneMatch(one -> one.tokenInfo().tokenId().equals(token.tokenInfo().tokenId())), "it is there");
        }
    }

    static void eventually(Callable<Boolean> holds) throws Exception {
        long until = System.currentTimeMillis() + 20_000;
        while (true) {
            boolean now;
            try { now = holds.call(); } catch (ExecutionException failure) { if (System.currentTimeMillis() > until) throw failure; now = false; }
            if (now) return;
            check(System.currentTimeMillis() < until, "waited 20 s");
            Thread.sleep(100);
        }
    }

    /** Sends for a time while something is done; all that was acknowledged is there, and nothing was refused. */
    static void under_load(Map<String, Object> settings, int seconds, Test work) throws Exception {
        String mark = "load-" + UUID.randomUUID();
        AtomicInteger acknowledged = new AtomicInteger();
        AtomicReference<Exception> failed = new AtomicReference<>();
        Thread worker = new Thread(() -> { try { Thread.sleep(1000); work.run(); } catch (Exception failure) { failed.set(failure); } });
        worker.start();
        try (var producer = producer(settings)) {
            long until = System.currentTimeMillis() + seconds * 1000L;
            for (int n = 0; System.currentTimeMillis() < until || worker.isAlive(); n++) {
                producer.send(new ProducerRecord<>(TOPIC, mark + " " + n), (metadata, error) -> { if (error == null) acknowledged.incrementAndGet(); else failed.compareAndSet(null, error); });
                if (n % 20 == 0) Thread.sleep(10);
            }
        }
        if (failed.get() != null) throw failed.get();
        check(read(settings, mark, acknowledged.get()).size() == acknowledged.get(), "acknowledged records are missing");
    }

    /** connections.max.reauth.ms is 3000 here. */
    static void again() throws Exception {
        for (String mechanism : List.of("PLAIN", "SCRAM-SHA-512"))
            under_load(settings("SASL_SSL", mechanism, USER, PASSWORD), 8, () -> {});
        under_load(token("alice"), 8, () -> {});
    }

    static void sh(String... command) throws Exception {
        var process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.INHERIT).start();
        check(process.waitFor() == 0, String.join(" ", command));
    }

    /** One that its authority gave for yesterday alone. */
    static void over() throws Exception {
        String base = DIR + "/over";
        sh("sh", "-c", "openssl req -newkey rsa:2048 -nodes -keyout " + base + ".key -subj /CN=alice -out " + base + ".csr 2>/dev/null && cd " + DIR + " && touch index && echo 01 >serial && printf '[ca]\\ndefault_ca=d\\n[d]\\nnew_certs_dir=.\\ndatabase=index\\nserial=serial\\ndefault_md=sha256\\npolicy=p\\nx509_extensions=e\\n[e]\\nbasicConstraints=CA:FALSE\\n[p]\\ncommonName=supplied\\n' >ca.cnf && openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -startdate 20200101000000Z -enddate 20200102000000Z -in " + base + ".csr -out " + base + ".pem 2>/dev/null >/dev/null && openssl x509 -in " + base + ".pem >" + base + "-both.pem && cat " + base + ".key >>" + base + "-both.pem");
        refused(certificate("over"), SslAuthenticationException.class);
    }

    /** The brokers' certificate and key are replaced by others of the same authority. */
    static void replaced() throws Exception {
        under_load(certificate("alice"), 12, () -> {
            sh("sh", "-c", "cd " + DIR + " && openssl req -newkey rsa:2048 -nodes -keyout new.key -subj /CN=broker -out new.csr 2>/dev/null && printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\n' >new.ext && openssl x509 -req -in new.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile new.ext -out new.pem 2>/dev/null && cp new.key broker.key && cp new.pem broker.pem");
            Thread.sleep(8000);
            // A new connection sees the new one.
            String[] at = ENV.get("SSL").split(",")[0].split(":");
            sh("sh", "-c", "openssl s_client -connect " + at[0] + ":" + at[1] + " -CAfile " + DIR + "/ca.pem </dev/null 2>/dev/null | grep -q 'subject=CN = broker'");
            works(certificate("alice"));
        });
    }

    /** Brokers speak TLS and SASL to each other while one goes and comes. */
    static void killed() throws Exception {
        under_load(settings("SASL_SSL", "SCRAM-SHA-512", USER, PASSWORD), 10, () -> { sh(ENV.get("BROKER_CTL"), "kill9", "1"); Thread.sleep(5000); sh(ENV.get("BROKER_CTL"), "start"); });
    }
}
