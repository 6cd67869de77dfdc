import com.arjuna.ats.arjuna.common.arjPropertyManager;
import com.arjuna.ats.arjuna.common.recoveryPropertyManager;
import com.arjuna.ats.arjuna.recovery.RecoveryManager;
import com.arjuna.ats.internal.jta.recovery.arjunacore.XARecoveryModule;
import com.arjuna.ats.jta.common.jtaPropertyManager;
import com.arjuna.ats.jta.recovery.XAResourceRecoveryHelper;
import jakarta.transaction.TransactionManager;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import javax.sql.XAConnection;
import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.postgresql.xa.PGXADataSource;

/**
 * Transactions of a database and a topic: number n becomes a row and a record. What it was told of each goes to a file.
 *
 *   Application cases FIRST                        one transaction for each moment at which broker or database is killed
 *   Application dies N ORDER MOMENT                is gone at that moment of transaction N
 *   Application works FIRST                        transactions until it is killed; every third is rolled back
 *   Application agrees                             recovers what is left, and compares
 */
public class Application {
    static final String TOPIC = "entries", NAME = "entries";
    private static final int PARTITIONS = 2;
    private static final Duration AGREE = Duration.ofSeconds(60);

    private final Path told = Path.of(System.getenv("WORK"), "told");
    private final PGXADataSource database = new PGXADataSource();
    private final Cluster cluster = new Cluster(System.getenv("BOOTSTRAP"));
    private final TransactionManager manager;
    /** The connection of the recovery that is on, or was last. */
    private XAConnection recovering;

    Application() throws Exception {
        database.setUrl(System.getenv("DATABASE"));
        arjPropertyManager.getCoreEnvironmentBean().setNodeIdentifier("1");
        arjPropertyManager.getCoreEnvironmentBean().setProcessImplementationClassName("com.arjuna.ats.internal.arjuna.utils.UuidProcessId");
        arjPropertyManager.getCoordinatorEnvironmentBean().setTransactionStatusManagerEnable(false);
        jtaPropertyManager.getJTAEnvironmentBean().setXAResourceRecordWrappingPlugin(new Named.Noting());
        jtaPropertyManager.getJTAEnvironmentBean().setXaRecoveryNodes(List.of("1"));
        jtaPropertyManager.getJTAEnvironmentBean().setOrphanSafetyInterval(1_000);
        jtaPropertyManager.getJTAEnvironmentBean().setXaResourceOrphanFilterClassNames(List.of(
            "com.arjuna.ats.internal.jta.recovery.arjunacore.JTATransactionLogXAResourceOrphanFilter",
            "com.arjuna.ats.internal.jta.recovery.arjunacore.JTAActionStatusServiceXAResourceOrphanFilter",
            "com.arjuna.ats.internal.jta.recovery.arjunacore.JTANodeNameXAResourceOrphanFilter"));
        var recovery = recoveryPropertyManager.getRecoveryEnvironmentBean();
        recovery.setRecoveryListener(false);
        recovery.setPeriodicRecoveryPeriod(2);
        recovery.setRecoveryBackoffPeriod(1);
        recovery.setRecoveryModuleClassNames(List.of("com.arjuna.ats.internal.arjuna.recovery.AtomicActionRecoveryModule", XARecoveryModule.class.getName()));
        recovery.setExpiryScannerClassNames(List.of());
        recovery.setRecoveryActivatorClassNames(List.of());
        RecoveryManager.manager(RecoveryManager.DIRECT_MANAGEMENT).initialize();
        XARecoveryModule module = XARecoveryModule.getRegisteredXARecoveryModule();
        module.addXAResourceRecoveryHelper(helper(() -> {
            close(recovering);
            recovering = null;
            recovering = database.getXAConnection();
            return new DatabaseResource(recovering.getXAResource());
        }));
        module.addXAResourceRecoveryHelper(helper(() -> new Named(new TopicResource(cluster, NAME), TOPIC)));
        manager = com.arjuna.ats.jta.TransactionManager.transactionManager();
    }

    private static XAResourceRecoveryHelper helper(Callable<XAResource> resource) {
        return new XAResourceRecoveryHelper() {
            @Override
            public boolean initialise(String unused) {
                return true;
            }

            @Override
            public XAResource[] getXAResources() throws Exception {
                return new XAResource[] {resource.call()};
            }
        };
    }

    public static void main(String[] arguments) throws Exception {
        Application application = new Application();
        switch (arguments[0]) {
            case "cases" -> application.cases(Integer.parseInt(arguments[1]));
            case "dies" -> application.entry(Integer.parseInt(arguments[1]), arguments[2], resource -> new Interrupted(resource, TOPIC, arguments[3], () -> Runtime.getRuntime().halt(9)), true);
            case "works" -> application.works(Integer.parseInt(arguments[1]));
            case "agrees" -> application.agrees();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.exit(0);
    }

    private void cases(int first) throws Exception {
        RecoveryManager.manager().startRecoveryManagerThread();
        int n = first;
        for (String victim : List.of("broker", "database")) {
            for (String order : Interrupted.ORDERS) {
                for (String moment : Interrupted.MOMENTS) {
                    entry(n++, order, resource -> new Interrupted(resource, TOPIC, moment, () -> kill(victim)), true);
                }
            }
        }
    }

    private static void kill(String victim) {
        try {
            new ProcessBuilder(System.getenv("KILL"), victim).inheritIO().start().waitFor();
        } catch (IOException | InterruptedException failed) {
            throw new IllegalStateException(failed);
        }
    }

    private void works(int first) throws Exception {
        RecoveryManager.manager().startRecoveryManagerThread();
        for (int n = first; ; n++) entry(n, Interrupted.ORDERS.get(n % 2), resource -> new Named(resource, TOPIC), n % 3 != 0);
    }

    private interface Wrapping {
        XAResource wrap(TopicResource resource);
    }

    /** One transaction, and what its manager tells of it. */
    private void entry(int n, String order, Wrapping wrapping, boolean commit) throws Exception {
        tell("BEGINS " + n);
        XAConnection connection = null;
        boolean is_decided = false;
        try {
            connection = database.getXAConnection();
            TopicResource topic = new TopicResource(cluster, NAME);
            manager.begin();
            boolean topic_first = order.equals("topic-first");
            if (topic_first) manager.getTransaction().enlistResource(wrapping.wrap(topic));
            manager.getTransaction().enlistResource(new DatabaseResource(connection.getXAResource()));
            if (!topic_first) manager.getTransaction().enlistResource(wrapping.wrap(topic));
            try (Connection work = connection.getConnection(); var insert = work.prepareStatement("insert into entries values (?)")) {
                insert.setInt(1, n);
                insert.execute();
            }
            topic.send(TOPIC, n % PARTITIONS, new SimpleRecord(String.valueOf(n).getBytes()));
            is_decided = true;
            if (commit) manager.commit();
            else manager.rollback();
            tell((commit ? "COMMITTED " : "ROLLED-BACK ") + n);
        } catch (jakarta.transaction.RollbackException rolled) {
            tell("ROLLED-BACK " + n);
        } catch (Exception failed) {
            failed.printStackTrace();
            try {
                if (!is_decided && manager.getTransaction() != null) manager.rollback();
            } catch (Exception again) {
                again.printStackTrace();
            }
            tell((is_decided ? "UNKNOWN " : "ROLLED-BACK ") + n);
            Thread.sleep(100);
        } finally {
            if (manager.getTransaction() != null) manager.suspend();
            close(connection);
        }
    }

    private static void close(XAConnection connection) {
        try {
            if (connection != null) connection.close();
        } catch (SQLException failed) {
            // It is gone either way.
        }
    }

    private void tell(String line) throws IOException {
        Files.writeString(told, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    private void agrees() throws Exception {
        long until = System.nanoTime() + AGREE.toNanos();
        do {
            RecoveryManager.manager().scan();
            if (System.nanoTime() > until) {
                System.out.println("FAIL xa/recovers-everything: open after " + AGREE + ": " + pending());
                return;
            }
        } while (pending() > 0);
        System.out.println("PASS xa/recovers-everything");
        List<Integer> rows = rows(), records = records();
        Map<String, TreeSet<Integer>> said = new HashMap<>();
        for (String line : Files.readAllLines(told)) {
            String[] words = line.split(" ");
            said.computeIfAbsent(words[0], none -> new TreeSet<>()).add(Integer.parseInt(words[1]));
        }
        report("both-agree-on-every-transaction", rows, records);
        report("what-was-committed-is-there", List.of(), without(said.get("COMMITTED"), rows));
        TreeSet<Integer> wrong = new TreeSet<>(said.getOrDefault("ROLLED-BACK", new TreeSet<>()));
        wrong.retainAll(rows);
        report("nothing-that-was-rolled-back-is-there", List.of(), new ArrayList<>(wrong));
        System.err.println(said.get("BEGINS").size() + " transactions, " + rows.size() + " rows; " + said.get("COMMITTED").size() + " committed, "
            + said.get("ROLLED-BACK").size() + " rolled back, without an answer: " + without(without(said.get("BEGINS"), said.get("COMMITTED")), said.get("ROLLED-BACK")));
    }

    private static List<Integer> without(Iterable<Integer> all, Iterable<Integer> left_out) {
        TreeSet<Integer> rest = new TreeSet<>();
        all.forEach(rest::add);
        left_out.forEach(rest::remove);
        return new ArrayList<>(rest);
    }

    private static void report(String name, List<Integer> expected, List<Integer> found) {
        System.out.println(found.equals(expected) ? "PASS xa/" + name : "FAIL xa/" + name + ": " + without(expected, found) + " are missing, " + without(found, expected) + " are too many, of " + found.size());
    }

    /** Branches that are not ended. */
    private int pending() throws SQLException, XAException {
        XAConnection connection = database.getXAConnection();
        try {
            return connection.getXAResource().recover(XAResource.TMSTARTRSCAN | XAResource.TMENDRSCAN).length
                + new TopicResource(cluster, NAME).recover(XAResource.TMSTARTRSCAN | XAResource.TMENDRSCAN).length;
        } finally {
            close(connection);
        }
    }

    private List<Integer> rows() throws SQLException {
        List<Integer> rows = new ArrayList<>();
        try (Connection connection = database.getConnection(); var statement = connection.createStatement(); ResultSet found = statement.executeQuery("select n from entries order by n")) {
            while (found.next()) rows.add(found.getInt(1));
        }
        return rows;
    }

    /** Committed ones, up to the ends. */
    private List<Integer> records() {
        List<Integer> records = new ArrayList<>();
        Map<String, Object> config = Access.config("isolation.level", "read_committed", "auto.offset.reset", "earliest", "enable.auto.commit", false);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = List.of(new TopicPartition(TOPIC, 0), new TopicPartition(TOPIC, 1));
            consumer.assign(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                ConsumerRecords<String, String> some = consumer.poll(Duration.ofMillis(200));
                some.forEach(record -> records.add(Integer.parseInt(record.value())));
            }
        }
        records.sort(null);
        return records;
    }
}
