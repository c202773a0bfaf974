// The part of NVML that Pitcrew asks, with three devices of which the environment says how they are: FAKE_NVML is
// empty or `driver` (not loaded). Device 1 is cut into instances; device 2 has fallen off the bus.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, NO_DRIVER = 9, LOST = 15 };
typedef struct { int index, instance; } device;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned gpu, memory; } use;

static device devices[] = {{0, -1}, {1, -1}, {2, -1}, {1, 0}};

static int is(const char *word) {
    const char *mode = getenv("FAKE_NVML");
    return mode && strcmp(mode, word) == 0;
}

int nvmlInit_v2(void) { return is("driver") ? NO_DRIVER : OK; }
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "550.54.15"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 3;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **found) { *found = &devices[index]; return index == 2 ? LOST : OK; }
int nvmlDeviceGetName(device *d, char *text, unsigned size) {
    snprintf(text, size, d->instance < 0 ? "NVIDIA A100-SXM4-40GB" : "NVIDIA A100-SXM4-40GB MIG 1g.5gb");
    return OK;
}
int nvmlDeviceGetUUID(device *d, char *text, unsigned size) {
    snprintf(text, size, d->instance < 0 ? "GPU-%d" : "MIG-%d", d->index);
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(device *d, memory *m) { m->total = 40960ull << 20; m->used = 512ull << 20; return OK; }
int nvmlDeviceGetUtilizationRates(device *d, use *u) { u->gpu = 37; return d->index == 1 ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetPowerUsage(device *d, unsigned *milliwatts) { *milliwatts = 69220; return OK; }
int nvmlDeviceGetTemperature(device *d, int sensor, unsigned *celsius) { *celsius = 31; return OK; }
int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending) { *current = *pending = d->index == 1; return OK; }
int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *count) { *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned index, device **found) {
    *found = &devices[3];
    return index == 4 ? OK : NOT_FOUND;
}
