#include "nvenc_slots.h"

#include "log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

/* Held while slots are looked at: to look is to lock for a moment, which must not make a slot
 * seem taken to somebody else. */
static int gate(void)
{
    int file = open_in_folder("gate", O_RDWR | O_CREAT);
    if (file >= 0)
        flock(file, LOCK_EX);
    return file;
}

static int open_slot(int index, int flags)
{
    char name[32];
    snprintf(name, sizeof name, "slot-%d", index);
    return open_in_folder(name, flags);
}

void slot_tell(int file, int gpu, int width, int height)
{
    struct slot slot = {(int)getpid(), gpu, width, height};
    if (file >= 0 && pwrite(file, &slot, sizeof slot, 0) < 0)
        perror("virtual NVENC: slot");
}

int slot_take(int limit, int gpu)
{
    int guard = gate();
    if (guard < 0)
        return -2;
    int taken = -1;
    for (int i = 0; i < limit && taken < 0; i++) {
        int file = open_slot(i, O_RDWR | O_CREAT);
        if (file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0)
            taken = file;
        else if (file >= 0)
            close(file);
    }
    slot_tell(taken, gpu, 0, 0);
    close(guard);
    return taken;
}

int slots_taken(int gpu, struct slot slots[SLOTS])
{
    int guard = gate(), count = 0;
    for (int i = 0; guard >= 0 && i < SLOTS; i++) {
        int file = open_slot(i, O_RDONLY);
        if (file < 0)
            continue;
        struct slot slot;
        if (flock(file, LOCK_SH | LOCK_NB) != 0 &&
            pread(file, &slot, sizeof slot, 0) == sizeof slot && slot.gpu == gpu)
            slots[count++] = slot;
        close(file);
    }
    if (guard >= 0)
        close(guard);
    return count;
}
