import java.util.List;
import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;

/** A resource beside which something happens at a moment of its transaction. */
final class Interrupted extends Named {
    static final List<String> MOMENTS = List.of("before-prepare", "prepared", "before-commit", "committed");
    /** Which resource is enlisted first, and so asked first. */
    static final List<String> ORDERS = List.of("topic-first", "database-first");

    private final String moment;
    private final Runnable event;

    Interrupted(XAResource inner, String name, String moment, Runnable event) {
        super(inner, name);
        if (!MOMENTS.contains(moment)) throw new IllegalArgumentException(moment);
        this.moment = moment;
        this.event = event;
    }

    private void at(String now) {
        if (now.equals(moment)) event.run();
    }

    @Override
    public int prepare(Xid xid) throws XAException {
        at("before-prepare");
        int vote = super.prepare(xid);
        at("prepared");
        return vote;
    }

    @Override
    public void commit(Xid xid, boolean onePhase) throws XAException {
        at("before-commit");
        super.commit(xid, onePhase);
        at("committed");
    }
}
