/*
 * Whom workers ring: a collector that may be away in user code for ever, and two threads that wait for a task each.
 * A third task is nobody's but the collector's. Nobody looks once a second.
 *
 * models  roles.c: wp_address wp_settle poke_a_sleeper has_news wait_as_helper serve_as_helper sleep_on_word
 * models  roles.c: wp_sleep_until_settled; worker.c: ring; collect.c: weirpool_collect doze set_asleep
 *
 * Every task that somebody waits for is taken, and so is the third unless the collector is away.
 *
 * holds
 * fails   NO_OWN_POKE      invalid end state   who leaves keeps the offer of the helper's role that came to it
 * fails   NO_SECOND_LOOK   invalid end state   the helper sleeps without looking again once it may be rung
 * fails   NO_LAST_TAKE     invalid end state   a helper leaves what was rung for while it left
 * fails   NO_ADDRESS       invalid end state   a helper that leaves is rung on
 */
#define NOBODY 0
#define COLLECTOR 1
#define HELPER 2
#define WAITERS 2
#define TASKS (WAITERS + 1)

bool lock;
bool done_bit[TASKS];
bool taken[TASKS]; /* of a waiter's: its word is settled */
byte offers[WAITERS]; /* WP_POKED, counted in the word */
bool waits[WAITERS]; /* in the futex of its word */
bool sleepers[WAITERS];
byte helper; /* helper_word: the waiter + 1 */
bool helper_asleep, helper_waits, collector_asleep, bell;
byte helper_bell;
byte addressee = NOBODY;

#define any_done (done_bit[0] || done_bit[1] || done_bit[2])

inline acquire()
{
    atomic { !lock -> lock = true }
}

inline address()
{
    addressee = (helper != 0 -> (helper_asleep -> HELPER : NOBODY) : (collector_asleep -> COLLECTOR : NOBODY))
}

inline ring_helper()
{
    atomic { helper_bell++; helper_waits = false }
}

inline ring()
{
    atomic {
        whom = addressee
    }
    if
    :: whom == COLLECTOR -> bell = true
    :: whom == HELPER -> ring_helper()
    :: whom == NOBODY
    fi
}

/* Each by a worker of its own, as they come. */
proctype worker(byte task)
{
    byte whom;
    done_bit[task] = true;
    ring()
}

inline settle(i)
{
    atomic {
        taken[i] = true;
        waits[i] = false
    }
    if
    :: helper == i + 1 -> ring_helper()
    :: helper != i + 1
    fi
}

inline take()
{
    if
    :: done_bit[0] -> done_bit[0] = false; settle(0)
    :: !done_bit[0]
    fi;
    if
    :: done_bit[1] -> done_bit[1] = false; settle(1)
    :: !done_bit[1]
    fi;
    if
    :: done_bit[2] -> done_bit[2] = false; taken[2] = true
    :: !done_bit[2]
    fi
}

/* The oldest sleeper: here always the first. */
inline poke()
{
    if
    :: helper == 0 && sleepers[0] -> atomic { offers[0]++; waits[0] = false }
    :: helper == 0 && !sleepers[0] && sleepers[1] -> atomic { offers[1]++; waits[1] = false }
    :: else
    fi
}

proctype waiter(byte me)
{
    byte seen, offer;
    acquire();
    sleepers[me] = true;
    do
    :: taken[me] -> break
    :: !taken[me] && helper == 0 -> /* serve_as_helper() */
        helper = me + 1;
        address();
        do
        :: true ->
            seen = helper_bell;
            take();
            if
            :: taken[me] -> break
            :: else
            fi;
            helper_asleep = true;
            address();
#ifndef NO_SECOND_LOOK
            if
            :: helper_bell != seen || taken[me] || any_done
            :: else ->
#endif
                lock = false;
                atomic { helper_waits = (helper_bell == seen) }
                !helper_waits;
                acquire();
#ifndef NO_SECOND_LOOK
            fi;
#endif
            helper_asleep = false;
            address()
        od;
        helper = 0;
#ifndef NO_ADDRESS
        address();
#endif
        poke();
#ifndef NO_LAST_TAKE
        take()
#endif
    :: !taken[me] && helper != 0 -> /* sleep_on_word() */
        offer = offers[me];
        lock = false;
        atomic { waits[me] = (!taken[me] && offers[me] == offer) }
        !waits[me];
        acquire()
    od;
    sleepers[me] = false;
#ifndef NO_OWN_POKE
    poke();
#endif
    lock = false
}

proctype collector()
{
    do
    :: taken[0] && taken[1] && taken[2] -> break
    :: !(taken[0] && taken[1] && taken[2]) ->
        acquire();
        take();
        collector_asleep = true;
        address();
        take();
        lock = false;
        if
        :: bell -> bell = false
        :: taken[0] && taken[1] && taken[2]
        fi;
        acquire();
        collector_asleep = false;
        address();
        lock = false
    :: true -> /* it tells, and that takes for ever */
end_away: false
    od
}

init
{
    atomic {
        run worker(0);
        run worker(1);
        run worker(2);
        run waiter(0);
        run waiter(1);
        run collector()
    }
}
