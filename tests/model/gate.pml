/*
 * The gate: one permit, two producers of small tasks that wait in line with them, one of whom may give up, and a pool
 * that may be closed.
 *
 * models  gate.c: wp_gate_try wp_gate_queue wp_gate_admit_next wp_gate_withdraw wp_gate_dismiss_next wp_gate_return
 * models  line.c: join_line weirpool_await weirpool_leave wp_queue_and_wait; submit.c: admit_now
 * models  queue.c: admit admit_producers wp_end_task wp_close_gate; roles.c: wp_settle
 *
 * A task is published once or not at all, as its producer is told; every permit comes home; nobody waits for ever.
 *
 * holds
 * holds   GIVES_UP                 a producer's deadline passes, at any moment
 * holds   CLOSES                   the gate is closed at any moment
 * holds   GIVES_UP CLOSES
 * fails   NO_ADMISSION             invalid end state   who returns a permit lets nobody in
 * fails   NO_LOOK_AT_ROOM          invalid end state   a producer joins the line without looking for room once more
 * fails   CLOSES NO_LOOK_AT_CLOSE  invalid end state   nor whether the gate was closed meanwhile
 * fails   CLOSES CLOSE_ONE         invalid end state   closing wakes the first alone
 * fails   GIVES_UP NO_LOOK_AT_TURN assertion           who gives up does not look whether its turn has come
 * fails   GIVES_UP STAYS_IN_LINE   assertion           who gives up is admitted afterwards
 */
#define PRODUCERS 2
#define TASKS (PRODUCERS + 1) /* the last runs from the beginning */

mtype = { NOWHERE, WAITING, ADMITTED, DISMISSED };

bool lock;
bool closed;
byte outstanding = 1;
bool runs[TASKS];      /* published and not ended */
byte published[TASKS]; /* how often */
mtype ticket[PRODUCERS] = NOWHERE;
chan line = [PRODUCERS] of { byte };
byte over;

inline acquire()
{
    atomic { !lock -> lock = true }
}

inline release()
{
    lock = false
}

inline publish(task)
{
    published[task]++;
    runs[task] = true
}

/* admit_producers() */
inline flow()
{
    do
    :: !closed && outstanding == 0 && nempty(line) ->
        line ? first;
        outstanding++;
        publish(first);
        ticket[first] = ADMITTED
    :: closed || outstanding != 0 || empty(line) -> break
    od
}

proctype producer(byte me; bool hurries)
{
    byte first;
    bool mine;
    /* wp_gate_try(), and apart from that the line */
    acquire();
    if
    :: closed -> release(); goto done
    :: !closed && outstanding == 0 && empty(line) -> outstanding++; publish(me); mine = true
    :: !closed && (outstanding != 0 || nempty(line))
    fi;
    release();
    if
    :: mine -> goto done
    :: else
    fi;
    acquire();
#ifndef NO_LOOK_AT_CLOSE
    if
    :: closed -> release(); goto done
    :: else
    fi;
#endif
    line ! me;
    ticket[me] = WAITING;
#ifndef NO_LOOK_AT_ROOM
    flow();
#endif
    release();
    if
    :: ticket[me] != WAITING
    :: hurries -> skip
    fi;
    acquire();
    if
#ifndef NO_LOOK_AT_TURN
    :: ticket[me] != WAITING -> mine = (ticket[me] == ADMITTED)
    :: ticket[me] == WAITING ->
#else
    :: !hurries -> mine = (ticket[me] == ADMITTED)
    :: hurries ->
#endif
#ifndef STAYS_IN_LINE
        if
        :: line ?? [eval(me)] -> line ?? eval(me)
        :: ticket[me] != WAITING
        fi;
#endif
        mine = false;
        flow()
    fi;
    release();
done:
    over++;
    (over == PRODUCERS);
    assert(published[me] == mine)
}

/* The workers and whoever takes what they have done. */
proctype taker()
{
    byte first, i;
end_idle:
    do
    :: atomic { !lock && (runs[0] || runs[1] || runs[2]) -> lock = true }
        i = (runs[0] -> 0 : (runs[1] -> 1 : 2));
        runs[i] = false;
        outstanding--;
#ifndef NO_ADMISSION
        flow();
#endif
        i = 0;
        release()
    :: atomic { over == PRODUCERS && !lock && !runs[0] && !runs[1] && !runs[2] -> break }
    od;
    assert(outstanding == 0)
}

proctype closer()
{
    byte first;
    acquire();
    closed = true;
    do
    :: nempty(line) -> line ? first; ticket[first] = DISMISSED
#ifdef CLOSE_ONE
        ; break
#endif
    :: empty(line) -> break
    od;
    release()
}

init
{
    atomic {
        runs[PRODUCERS] = true;
#ifdef GIVES_UP
        run producer(0, true);
#else
        run producer(0, false);
#endif
        run producer(1, false);
        run taker();
#ifdef CLOSES
        run closer()
#endif
    }
}
