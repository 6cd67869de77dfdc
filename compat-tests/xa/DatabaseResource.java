import java.sql.SQLException;
import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;

/**
 * The database's resource, which says that the database is away where it is: PostgreSQL's driver has XAER_RMERR for what the server
 * says when it goes down (SQLSTATE 57P01 to 57P03), and a manager may take that for a branch that nobody can end.
 */
final class DatabaseResource extends Named {
    private static final String GOES_DOWN = "57P";

    DatabaseResource(XAResource inner) {
        super(inner, "database");
    }

    private interface Step {
        void run() throws XAException;
    }

    private static void step(Step step) throws XAException {
        try {
            step.run();
        } catch (XAException failed) {
            boolean is_away = failed.getCause() instanceof SQLException why && why.getSQLState() != null && why.getSQLState().startsWith(GOES_DOWN);
            if (!is_away) throw failed;
            XAException away = new XAException(XAException.XAER_RMFAIL);
            away.initCause(failed);
            throw away;
        }
    }

    @Override
    public void commit(Xid xid, boolean onePhase) throws XAException {
        step(() -> super.commit(xid, onePhase));
    }

    @Override
    public void rollback(Xid xid) throws XAException {
        step(() -> super.rollback(xid));
    }
}
