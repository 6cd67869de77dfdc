import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.Callable;
import java.util.stream.*;
import org.apache.kafka.common.utils.internals.Exit;

/** The command-line tools of Kafka, called in one JVM, with their output compared. */
public class Tools {
    static final PrintStream OUT = System.out;
    static final String RUN = UUID.randomUUID().toString().substring(0, 8);

    static class Exited extends RuntimeException { final int code; Exited(int code) { super("exit " + code); this.code = code; } }
    interface Test { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        Exit.setExitProcedure((code, message) -> { throw new Exited(code); });
        Exit.setHaltProcedure((code, message) -> { throw new Exited(code); });
        OUT.println("CLIENT kafka-tools|4.4.0|Java|topics, configs, consumer-groups, get-offsets, delete-records, log-dirs, api-versions, perf-tests, verifiable and console clients|tools/");
        test("topics", Tools::topics);
        test("configs", Tools::configs);
        test("console-producer-and-consumer", Tools::console);
        test("consumer-groups", Tools::groups);
        test("get-offsets", Tools::getOffsets);
        test("delete-records", Tools::deleteRecords);
        test("log-dirs", Tools::logDirs);
        test("broker-api-versions", Tools::apiVersions);
        test("verifiable-producer-and-consumer", Tools::verifiable);
        test("perf-tests", Tools::perf);
        Runtime.getRuntime().halt(0);
    }

    static void test(String name, Test test) {
        long start = System.currentTimeMillis();
        try {
            test.run();
            OUT.println("PASS tools/" + name);
        } catch (Throwable failure) {
            failure.printStackTrace();
            String text = failure.toString().replaceAll("\\s+", " ");
            OUT.println("FAIL tools/" + name + ": " + text.substring(0, Math.min(500, text.length())));
        }
        System.err.println("tools/" + name + " took " + (System.currentTimeMillis() - start) + " ms");
    }

    /** Runs a tool's main and gives what it printed; --bootstrap-server and what else it needs to come in are added. */
    static String tool(String type, String... args) throws Exception {
        return fed(type, null, args);
    }

    /** The same for a tool that reads standard input. */
    static String fed(String type, String input, String... more) throws Exception {
        String[] args = Access.options(more).toArray(String[]::new);
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream to = new PrintStream(printed, true);
        InputStream in = System.in;
        PrintStream err = System.err;
        System.setOut(to);
        System.setErr(to);
        if (input != null) System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        try {
            Class.forName(type).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (java.lang.reflect.InvocationTargetException error) {
            Throwable cause = error.getCause();
            if (!(cause instanceof Exited)) throw new RuntimeException(String.valueOf(cause) + " " + printed, cause);
            if (((Exited) cause).code != 0) printed.write(("EXIT " + ((Exited) cause).code).getBytes());
        } finally {
            System.setOut(OUT);
            System.setErr(err);
            System.setIn(in);
        }
        err.println("$ " + type.replaceAll(".*\\.", "") + " " + String.join(" ", args) + "\n" + printed);
        return printed.toString();
    }

    static String topic(String name) { return name + "-" + RUN; }

    static void contains(String text, String... wanted) {
        for (String word : wanted) if (!text.contains(word)) throw new AssertionError("no \"" + word + "\" in: " + text);
    }

    /** What every broker shows soon: they hear of a change a moment after it was answered. */
    static void shows(Callable<String> shown, String... wanted) throws Exception {
        String last = "";
        for (int tries = 0; tries < 20; tries++) {
            last = shown.call();
            if (Stream.of(wanted).allMatch(last::contains)) return;
            Thread.sleep(100);
        }
        contains(last, wanted);
    }

    static void waitFor(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.currentTimeMillis() + 30_000;
        while (!condition.call()) {
            if (System.currentTimeMillis() > deadline) throw new AssertionError("waited 30 s for " + what);
            Thread.sleep(100);
        }
    }

    static final String TOPICS = "org.apache.kafka.tools.TopicCommand";
    static final String CONFIGS = "org.apache.kafka.tools.ConfigCommand";
    static final String GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

    static void create(String topic, int partitions, String... more) throws Exception {
        String[] args = {"--create", "--topic", topic, "--partitions", "" + partitions, "--replication-factor", "1"};
        contains(tool(TOPICS, Stream.concat(Stream.of(args), Stream.of(more)).toArray(String[]::new)), "Created topic " + topic);
    }

    static void topics() throws Exception {
        String topic = topic("topics");
        create(topic, 3, "--config", "retention.ms=7200000");
        waitFor("the topic to be listed", () -> tool(TOPICS, "--list").contains(topic));
        shows(() -> tool(TOPICS, "--describe", "--topic", topic), "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=7200000", "Partition: 2");
        contains(tool(TOPICS, "--create", "--topic", topic, "--partitions", "3"), "already exists");
        tool(TOPICS, "--alter", "--topic", topic, "--partitions", "5");
        waitFor("five partitions", () -> tool(TOPICS, "--describe", "--topic", topic).contains("PartitionCount: 5"));
        tool(TOPICS, "--delete", "--topic", topic);
        waitFor("the topic to be gone", () -> !tool(TOPICS, "--list").contains(topic));
    }

    static void configs() throws Exception {
        String topic = topic("configs");
        create(topic, 1);
        contains(tool(CONFIGS, "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "flush.messages=5,cleanup.policy=[compact,delete]"), "Completed updating config");
        shows(() -> tool(CONFIGS, "--describe", "--entity-type", "topics", "--entity-name", topic), "flush.messages=5", "cleanup.policy=compact,delete");
        contains(tool(CONFIGS, "--describe", "--all", "--entity-type", "topics", "--entity-name", topic), "segment.bytes=1073741824", "min.insync.replicas=1");
        contains(tool(CONFIGS, "--alter", "--entity-type", "topics", "--entity-name", topic, "--delete-config", "flush.messages"), "Completed updating config");
        waitFor("the default", () -> !tool(CONFIGS, "--describe", "--entity-type", "topics", "--entity-name", topic).contains("flush.messages=5"));
        contains(tool(CONFIGS, "--describe", "--all", "--entity-type", "brokers", "--entity-name", "0"), "log.dirs=", "num.partitions=");
    }

    static void produce(String topic, int count) throws Exception {
        String lines = IntStream.range(0, count).mapToObj(n -> "k" + n % 7 + ":v" + n).collect(Collectors.joining("\n", "", "\n"));
        fed("org.apache.kafka.tools.ConsoleProducer", lines, "--topic", topic, "--property", "parse.key=true", "--property", "key.separator=:", "--sync", "--timeout", "5");
    }

    static void console() throws Exception {
        String topic = topic("console");
        create(topic, 1);
        produce(topic, 20);
        String read = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", topic, "--from-beginning", "--max-messages", "20", "--timeout-ms", "20000", "--property", "print.key=true", "--property", "print.offset=true");
        contains(read, "Offset:0\tk0\tv0", "Offset:19\tk5\tv19");
    }

    static void groups() throws Exception {
        String topic = topic("groups"), group = topic("group");
        create(topic, 1);
        produce(topic, 30);
        tool("org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", topic, "--from-beginning", "--max-messages", "30", "--timeout-ms", "20000", "--group", group);
        contains(tool(GROUPS, "--list"), group);
        contains(tool(GROUPS, "--list", "--state", "Empty"), group);
        contains(tool(GROUPS, "--describe", "--group", group), topic, "30");
        contains(tool(GROUPS, "--describe", "--group", group, "--state"), "Empty");
        String plan = tool(GROUPS, "--group", group, "--topic", topic, "--reset-offsets", "--to-earliest", "--dry-run");
        contains(plan, topic, "0");
        contains(tool(GROUPS, "--describe", "--group", group), "30");
        tool(GROUPS, "--group", group, "--topic", topic, "--reset-offsets", "--to-offset", "12", "--execute");
        contains(tool(GROUPS, "--describe", "--group", group), "12", "18");
        tool(GROUPS, "--group", group, "--topic", topic, "--reset-offsets", "--shift-by", "-2", "--execute");
        contains(tool(GROUPS, "--describe", "--group", group), "10", "20");
        tool(GROUPS, "--group", group, "--topic", topic, "--reset-offsets", "--to-datetime", "2020-01-01T00:00:00.000", "--execute");
        String read = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", topic, "--max-messages", "1", "--timeout-ms", "20000", "--group", group);
        contains(read, "v0");
        contains(tool(GROUPS, "--group", group, "--topic", topic, "--delete-offsets"), "Successful");
        contains(tool(GROUPS, "--group", group, "--delete"), "successful");
        if (tool(GROUPS, "--list").contains(group)) throw new AssertionError("still listed");
    }

    static void getOffsets() throws Exception {
        String topic = topic("offsets"), type = "org.apache.kafka.tools.GetOffsetShell";
        create(topic, 2);
        produce(topic, 40);
        String ends = tool(type, "--topic", topic, "--time", "-1");
        int sum = Stream.of(ends.trim().split("\n")).filter(l -> l.startsWith(topic)).mapToInt(l -> Integer.parseInt(l.split(":")[2].trim())).sum();
        if (sum != 40) throw new AssertionError(ends);
        contains(tool(type, "--topic", topic, "--time", "earliest"), topic + ":0:0", topic + ":1:0");
        contains(tool(type, "--topic", topic, "--time", "max-timestamp"), topic + ":");
        contains(tool(type, "--topic", topic, "--time", "1000"), topic + ":0:0");
    }

    static void deleteRecords() throws Exception {
        String topic = topic("delete");
        create(topic, 1);
        produce(topic, 25);
        Path file = Files.createTempFile("delete", ".json");
        Files.writeString(file, "{\"version\":1,\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":0,\"offset\":11}]}");
        contains(tool("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", file.toString()), "low_watermark: 11");
        contains(tool("org.apache.kafka.tools.GetOffsetShell", "--topic", topic, "--time", "-2"), topic + ":0:11");
    }

    static void logDirs() throws Exception {
        String topic = topic("dirs");
        create(topic, 1);
        produce(topic, 5);
        contains(tool("org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", topic), "\"partition\":\"" + topic + "-0\"", "\"error\":null");
    }

    static void apiVersions() throws Exception {
        contains(tool("org.apache.kafka.tools.BrokerApiVersionsCommand"), "Produce(0)", "Fetch(1)", "DeleteGroups(42)");
    }

    /** In a process of its own: these tools print from threads that outlive their main. */
    static String process(String type, String... args) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx128m", "-cp", System.getProperty("java.class.path"), type));
        command.addAll(Access.options(args));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        return new String(process.getInputStream().readAllBytes());
    }

    static void verifiable() throws Exception {
        String topic = topic("verifiable");
        create(topic, 1);
        contains(process("org.apache.kafka.tools.VerifiableProducer", "--topic", topic, "--max-messages", "200", "--acks", "-1"), "\"acked\":200");
        contains(process("org.apache.kafka.tools.VerifiableConsumer", "--topic", topic, "--group-id", topic, "--max-messages", "200", "--reset-policy", "earliest"), "\"name\":\"records_consumed\"", "\"success\":true");
    }

    static void perf() throws Exception {
        String topic = topic("perf");
        create(topic, 2);
        contains(tool("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "20000", "--record-size", "500", "--throughput", "-1"), "20000 records sent");
        contains(tool("org.apache.kafka.tools.ConsumerPerformance", "--topic", topic, "--messages", "20000", "--timeout", "20000"), "20000");
    }
}
