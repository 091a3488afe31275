/* Encode sessions as the whole machine sees them. Each holds a file of the device's folder by a
 * lock, which the kernel takes away from a process that dies, however it dies. */
#ifndef NVENC_SLOTS_H
#define NVENC_SLOTS_H

/* What a slot's file says about its session. */
struct slot {
    int pid, gpu, width, height;
};

/* More sessions than this at once are not possible. */
enum { SLOTS = 64 };

/* Takes a slot of the first `limit`. Returns its file, to be closed when the session ends; -1
 * when all are taken; -2 when the device has no folder, and so no limit. */
int slot_take(int limit, int gpu);

/* Tells the size of the pictures of the session. */
void slot_tell(int file, int gpu, int width, int height);

/* The sessions that are open now on this GPU; how many they are. */
int slots_taken(int gpu, struct slot slots[SLOTS]);

#endif
