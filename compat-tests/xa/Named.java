import com.arjuna.ats.internal.jta.resources.arjunacore.XAResourceRecord;
import com.arjuna.ats.internal.jta.resources.arjunacore.XAResourceRecordWrappingPlugin;
import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.jboss.tm.XAResourceWrapper;

/**
 * A resource under a name, which the manager notes. A branch that it is to commit in recovery, and that the resource of the name does
 * not have any more, is over: the answer was lost. Of a resource without a name it does not know which one that is.
 */
class Named implements XAResourceWrapper {
    private final XAResource inner;
    private final String name;

    Named(XAResource inner, String name) {
        this.inner = inner;
        this.name = name;
    }

    /** Notes the name beside a branch. */
    static final class Noting implements XAResourceRecordWrappingPlugin {
        @Override
        public void transcribeWrapperData(XAResourceRecord branch) {
            if (branch.value() instanceof Named named) branch.setJndiName(named.name);
        }

        @Override
        public Integer getEISName(XAResource resource) {
            return 0;
        }

        @Override
        public String getEISName(Integer key) {
            return "";
        }
    }

    @Override
    public XAResource getResource() {
        return inner;
    }

    @Override
    public String getProductName() {
        return "";
    }

    @Override
    public String getProductVersion() {
        return "";
    }

    @Override
    public String getJndiName() {
        return name;
    }

    @Override
    public void start(Xid xid, int flags) throws XAException {
        inner.start(xid, flags);
    }

    @Override
    public void end(Xid xid, int flags) throws XAException {
        inner.end(xid, flags);
    }

    @Override
    public int prepare(Xid xid) throws XAException {
        return inner.prepare(xid);
    }

    @Override
    public void commit(Xid xid, boolean onePhase) throws XAException {
        inner.commit(xid, onePhase);
    }

    @Override
    public void rollback(Xid xid) throws XAException {
        inner.rollback(xid);
    }

    @Override
    public Xid[] recover(int flags) throws XAException {
        return inner.recover(flags);
    }

    @Override
    public void forget(Xid xid) throws XAException {
        inner.forget(xid);
    }

    @Override
    public boolean isSameRM(XAResource other) {
        return this == other;
    }

    @Override
    public int getTransactionTimeout() throws XAException {
        return inner.getTransactionTimeout();
    }

    @Override
    public boolean setTransactionTimeout(int seconds) throws XAException {
        return inner.setTransactionTimeout(seconds);
    }
}
