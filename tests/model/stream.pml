/*
 * A result that is larger than its ring of two pieces, between a worker that writes and a collector that drains.
 *
 * models  stream.c: wp_stream_write wp_stream_wait_for_room wp_stream_available wp_stream_read wp_stream_give_room
 * models  stream.c: wp_stream_rouse; worker.c: send ask_for_draining wp_complete ring
 * models  take.c: note_streaming_workers drain receive_body; collect.c: doze; repair.c: bury end_slots
 *
 * What arrives is what was sent. A worker that dies has its result delivered if it had said DONE, else lost; a parent
 * that dies lets the worker end, by the worker's own look; nobody else looks.
 *
 * holds
 * holds   DIES                 the worker is killed anywhere
 * holds   PARENT_DIES          the parent is killed anywhere
 * fails   NO_ROUSE             invalid end state   the drainer does not ring for the room it gives
 * fails   NO_ROOM_LOOK         invalid end state   the writer sleeps without looking again once it has said that it will
 * fails   NO_BIT               invalid end state   a full ring is nobody's news
 * fails   COUNTER_FIRST        assertion           the counter is ahead of the bytes
 * fails   ROOM_FIRST           assertion           room is given before the bytes are copied
 * fails   NO_SECOND_TAKE       invalid end state   the collector sleeps without taking again once it may be rung
 * fails   DIES NO_LAST_DRAIN   assertion           the repair drops a result that was done
 * fails   PARENT_DIES NO_LOOK  invalid end state   the worker waits for a parent that is dead
 */
#define RING 2
#define PIECES 3

byte ring[RING];
byte written, drained;
bool starved, streaming, done, done_bit, asks, bell; /* asks: the collector is to be rung */
byte room_bell;
bool dies, gone, parent_dies, parent_gone;
bool delivered, lost;

#define room (RING - (written - drained))

inline ring_bell()
{
    if
    :: asks -> bell = true
    :: !asks
    fi
}

proctype worker()
{
    byte at, seen;
    {
        do
        :: at == PIECES -> break
        :: at < PIECES && room > 0 ->
#ifdef COUNTER_FIRST
            written++;
            ring[at % RING] = at + 1;
#else
            ring[at % RING] = at + 1;
            written++;
#endif
            at++
        :: at < PIECES && room == 0 ->
#ifndef NO_BIT
            streaming = true;
#endif
            ring_bell();
            seen = room_bell;
            starved = true;
#ifndef NO_ROOM_LOOK
            if
            :: room > 0
            :: room == 0 ->
#endif
                if
                :: room_bell != seen
#ifndef NO_LOOK
                :: parent_gone -> goto left
#endif
                fi
#ifndef NO_ROOM_LOOK
            fi
#endif
            ;
            starved = false
        od;
        done = true;
        done_bit = true;
        ring_bell();
left:
end_idle: false
    } unless { dies }
    gone = true
}

inline drain()
{
    do
    :: written > cursor && cursor < PIECES ->
#ifdef ROOM_FIRST
        drained = cursor + 1;
        assert(ring[cursor % RING] == cursor + 1);
#else
        assert(ring[cursor % RING] == cursor + 1);
        drained = cursor + 1;
#endif
        cursor++;
#ifndef NO_ROUSE
        if
        :: starved -> room_bell++
        :: !starved
        fi
#endif
    :: written == cursor || cursor == PIECES -> break
    od
}

/* A done_bit, or a stream that is said to be there, makes it drain; a result that is whole and done is delivered. */
inline take()
{
    if
    :: streaming || done_bit -> streaming = false;
        if
        :: done_bit -> done_bit = false; owed = true
        :: !done_bit
        fi;
        drain()
    :: !streaming && !done_bit
    fi;
    if
    :: owed && cursor == PIECES -> delivered = true
    :: else
    fi
}

proctype collector()
{
    byte cursor;
    bool owed;
    {
        do
        :: delivered || lost -> break
        :: else ->
            asks = false;
            take();
            asks = true;
#ifndef NO_SECOND_TAKE
            take();
#endif
            if
            :: delivered
            :: bell -> bell = false
            :: gone -> gone = false;
                owed = done;
#ifndef NO_LAST_DRAIN
                drain();
#endif
                if
                :: owed && cursor == PIECES -> delivered = true
                :: else -> lost = true
                fi
            fi
        od;
        assert(delivered || !done)
    } unless { parent_dies && !(delivered || lost) }
    if
    :: parent_dies -> parent_gone = true
    :: else
    fi
}

init
{
    atomic {
        run worker();
        run collector()
    }
#ifdef DIES
    dies = true
#endif
#ifdef PARENT_DIES
    parent_dies = true
#endif
}
