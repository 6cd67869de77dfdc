import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.DescribeTransactionsRequestData;
import org.apache.kafka.common.message.DescribeTransactionsResponseData;
import org.apache.kafka.common.message.EndTxnRequestData;
import org.apache.kafka.common.message.EndTxnResponseData;
import org.apache.kafka.common.message.InitProducerIdRequestData;
import org.apache.kafka.common.message.InitProducerIdResponseData;
import org.apache.kafka.common.message.ListTransactionsRequestData;
import org.apache.kafka.common.message.ListTransactionsResponseData;
import org.apache.kafka.common.message.ProduceRequestData;
import org.apache.kafka.common.message.ProduceResponseData;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;

/**
 * An XA resource: records of topics that are committed together with what other resources have, by a transaction manager.
 *
 * A branch is a transaction of two phases (KIP-939), and its transactional id is the name of the resource with the Xid behind it. So
 * brokers know what is prepared, and how it ended: a manager that lost its memory, or runs elsewhere, asks them. Each record
 * is sent, and acknowledged, at once; to prepare is to know that none is missing.
 *
 * An object is for one transaction at a time. One manager at a time works with a name: what is open under it and not of this
 * process is the manager's to recover.
 */
public final class TopicResource implements XAResource {
    private static final int TIMEOUT_MS = 10_000;
    private static final short ALL = -1;

    private final Cluster cluster;
    private final String name;
    /** Branches of this process that are not prepared: none of a recovery's business. */
    private static final Set<String> WORKING = ConcurrentHashMap.newKeySet();
    private Branch branch;

    /** The name may have letters, digits and `-`. */
    public TopicResource(Cluster cluster, String name) {
        this.cluster = cluster;
        this.name = name;
    }

    record Producer(long id, short epoch) {}

    private static final class Branch {
        final String id;
        final Producer producer;
        final Map<TopicPartition, Integer> sequences = new HashMap<>();
        boolean failed;

        Branch(String id, Producer producer) {
            this.id = id;
            this.producer = producer;
        }
    }

    /** Sends a record in the transaction that this was enlisted in, and waits until it is there. */
    public void send(String topic, int partition, SimpleRecord record) throws IOException {
        if (branch == null) throw new IOException("no transaction has begun");
        TopicPartition to = new TopicPartition(topic, partition);
        int sequence = branch.sequences.getOrDefault(to, 0);
        var records = MemoryRecords.withTransactionalRecords(Compression.NONE, branch.producer.id, branch.producer.epoch, sequence, record);
        var data = new ProduceRequestData.TopicProduceData().setName(topic)
            .setPartitionData(List.of(new ProduceRequestData.PartitionProduceData().setIndex(partition).setRecords(records)));
        var request = new ProduceRequestData().setTransactionalId(branch.id).setAcks(ALL).setTimeoutMs(TIMEOUT_MS);
        request.topicData().add(data);
        // It may be there even if the answer is lost.
        branch.sequences.put(to, sequence + 1);
        try {
            var answer = cluster.ask(() -> cluster.leader(topic, partition), new Cluster.Request<>(request, 12, new ProduceResponseData()), TopicResource::error);
            Errors error = Errors.forCode(error(answer));
            if (error != Errors.NONE) throw new IOException(error.name());
        } catch (IOException | RuntimeException failed) {
            branch.failed = true;
            throw failed;
        }
    }

    private static short error(ProduceResponseData answer) {
        return answer.responses().iterator().next().partitionResponses().get(0).errorCode();
    }

    @Override
    public void start(Xid xid, int flags) throws XAException {
        if (flags != TMNOFLAGS) throw new XAException(XAException.XAER_INVAL);
        if (branch != null) throw new XAException(XAException.XAER_PROTO);
        String id = idOf(xid);
        WORKING.add(id);
        try {
            var answer = begin(id, false);
            branch = new Branch(id, new Producer(answer.producerId(), answer.producerEpoch()));
        } catch (XAException failed) {
            WORKING.remove(id);
            throw failed;
        }
    }

    @Override
    public void end(Xid xid, int flags) throws XAException {
        if (!isMine(xid)) throw new XAException(XAException.XAER_NOTA);
        if (flags == TMFAIL) branch.failed = true;
    }

    @Override
    public int prepare(Xid xid) throws XAException {
        if (!isMine(xid)) throw new XAException(XAException.XAER_NOTA);
        if (branch.sequences.isEmpty()) {
            leave();
            return XA_RDONLY;
        }
        if (branch.failed) {
            rollback(xid);
            throw new XAException(XAException.XA_RBROLLBACK);
        }
        WORKING.remove(branch.id);
        return XA_OK;
    }

    @Override
    public void commit(Xid xid, boolean onePhase) throws XAException {
        if (onePhase && isMine(xid) && branch.failed) {
            rollback(xid);
            throw new XAException(XAException.XA_RBROLLBACK);
        }
        finish(xid, true);
    }

    @Override
    public void rollback(Xid xid) throws XAException {
        finish(xid, false);
    }

    private void finish(Xid xid, boolean commit) throws XAException {
        if (isMine(xid)) {
            Branch ended = branch;
            leave();
            if (ended.sequences.isEmpty() || end(ended.id, ended.producer, commit)) return;
        }
        adopt(idOf(xid), commit);
    }

    private void leave() {
        WORKING.remove(branch.id);
        branch = null;
    }

    /** Ends the branch of a process that is gone, or says how it ended. */
    private void adopt(String id, boolean commit) throws XAException {
        switch (state(id)) {
            case "Ongoing" -> {
                var answer = begin(id, true);
                boolean is_open = answer.ongoingTxnProducerId() >= 0;
                // Or somebody else was faster, and the next question tells how it ended.
                if (!is_open || !end(id, new Producer(answer.producerId(), answer.producerEpoch()), commit)) throw new XAException(XAException.XAER_RMFAIL);
            }
            case "PrepareCommit", "CompleteCommit" -> {
                if (!commit) throw new XAException(XAException.XA_HEURCOM);
            }
            case "PrepareAbort", "CompleteAbort" -> {
                if (commit) throw new XAException(XAException.XA_HEURRB);
            }
            default -> throw new XAException(XAException.XAER_NOTA);
        }
    }

    /** Those that are prepared, and those of a process that is gone, which its manager will not know. */
    @Override
    public Xid[] recover(int flags) throws XAException {
        if ((flags & TMSTARTRSCAN) == 0) return new Xid[0];
        List<Xid> found = new ArrayList<>();
        try {
            for (InetSocketAddress broker : cluster.brokers()) {
                var request = new ListTransactionsRequestData().setStateFilters(List.of("Ongoing")).setTransactionalIdPattern(name + "/.*");
                var answer = cluster.ask(() -> broker, new Cluster.Request<>(request, 2, new ListTransactionsResponseData()), ListTransactionsResponseData::errorCode);
                if (answer.errorCode() != 0) throw new IOException(Errors.forCode(answer.errorCode()).name());
                for (var open : answer.transactionStates()) {
                    if (!WORKING.contains(open.transactionalId())) found.add(xidOf(open.transactionalId()));
                }
            }
        } catch (IOException failed) {
            throw failure(failed);
        }
        return found.toArray(new Xid[0]);
    }

    /** An operator's decision stays recorded at the broker until `metaq txn forget`. */
    @Override
    public void forget(Xid xid) {}

    @Override
    public boolean isSameRM(XAResource other) {
        return this == other;
    }

    @Override
    public int getTransactionTimeout() {
        return 0;
    }

    @Override
    public boolean setTransactionTimeout(int seconds) {
        return false;
    }

    private boolean isMine(Xid xid) {
        return branch != null && branch.id.equals(idOf(xid));
    }

    private InitProducerIdResponseData begin(String id, boolean keep) throws XAException {
        var request = new InitProducerIdRequestData().setTransactionalId(id).setTransactionTimeoutMs(TIMEOUT_MS).setEnable2Pc(true).setKeepPreparedTxn(keep);
        try {
            var answer = cluster.ask(() -> cluster.coordinator(id), new Cluster.Request<>(request, 6, new InitProducerIdResponseData()), InitProducerIdResponseData::errorCode);
            if (answer.errorCode() != 0) throw failure(new IOException(Errors.forCode(answer.errorCode()).name()));
            return answer;
        } catch (IOException failed) {
            throw failure(failed);
        }
    }

    /** Whether this producer's request ended it. The same request has the same answer again. */
    private boolean end(String id, Producer producer, boolean commit) throws XAException {
        var request = new EndTxnRequestData().setTransactionalId(id).setProducerId(producer.id).setProducerEpoch(producer.epoch).setCommitted(commit);
        try {
            var answer = cluster.ask(() -> cluster.coordinator(id), new Cluster.Request<>(request, 5, new EndTxnResponseData()), EndTxnResponseData::errorCode);
            return answer.errorCode() == 0;
        } catch (IOException failed) {
            throw failure(failed);
        }
    }

    private String state(String id) throws XAException {
        var request = new DescribeTransactionsRequestData().setTransactionalIds(List.of(id));
        try {
            var answer = cluster.ask(() -> cluster.coordinator(id), new Cluster.Request<>(request, 0, new DescribeTransactionsResponseData()), all -> all.transactionStates().get(0).errorCode());
            var found = answer.transactionStates().get(0);
            return found.errorCode() == 0 ? found.transactionState() : "Dead";
        } catch (IOException failed) {
            throw failure(failed);
        }
    }

    private static XAException failure(IOException why) {
        XAException failure = new XAException(XAException.XAER_RMFAIL);
        failure.initCause(why);
        return failure;
    }

    private String idOf(Xid xid) {
        HexFormat hex = HexFormat.of();
        return name + "/" + Integer.toHexString(xid.getFormatId()) + "/" + hex.formatHex(xid.getGlobalTransactionId()) + "/" + hex.formatHex(xid.getBranchQualifier());
    }

    private static Xid xidOf(String id) {
        String[] parts = id.split("/", -1);
        return new Known(Integer.parseUnsignedInt(parts[1], 16), HexFormat.of().parseHex(parts[2]), HexFormat.of().parseHex(parts[3]));
    }

    private record Known(int getFormatId, byte[] getGlobalTransactionId, byte[] getBranchQualifier) implements Xid {}
}
