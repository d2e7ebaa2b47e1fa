// A driver whose GPU is the host's memory: what cluinfer/engines/trt/gpu.py calls, and no more. Copies happen at once, or
// are kept while a stream is being recorded and happen when that is replayed. Everything that is allocated is counted,
// so that what was not freed shows, and memory freed twice ends the process.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long Pointer;
enum { OK = 0, FAILED = 1, MOST = 64 };
struct Copy { void *to; const void *from; size_t size; };
struct Graph { int count; struct Copy copies[MOST]; };

static _Atomic int alive;  // allocations, streams and graphs that were not freed
static _Thread_local struct Graph *recording;  // a stream is recorded and fed by one thread
static int fails;  // 1: no recording ends well
static int room = 1 << 30;  // of the GPU: it is full once so much is alive
static int moments;  // events that have happened, each a millisecond after the last
static void *waited;  // the stream that was last waited for

int stand_in_alive(void) { return alive; }
void stand_in_fail(int value) { fails = value; }
void stand_in_room(int value) { room = value; }
long stand_in_waited(void) { return (long)waited; }

static int copy(void *to, const void *from, size_t size) {
    if (recording) {
        if (recording->count == MOST) return FAILED;
        recording->copies[recording->count++] = (struct Copy){to, from, size};
    } else {
        memcpy(to, from, size);
    }
    return OK;
}

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "Stand-in"); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &alive; return OK; }
int cuCtxSetCurrent(void *context) { return OK; }
int cuMemAlloc_v2(Pointer *pointer, size_t size) {
    if (size > (size_t)1 << 40 || alive >= room) return 2;
    *pointer = (Pointer)malloc(size), ++alive;
    return OK;
}
int cuMemFree_v2(Pointer pointer) { free((void *)pointer), --alive; return OK; }
int cuMemHostAlloc(void **pointer, size_t size, unsigned flags) { *pointer = malloc(size), ++alive; return OK; }
int cuMemFreeHost(void *pointer) { free(pointer), --alive; return OK; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1), ++alive; return OK; }
int cuStreamDestroy_v2(void *stream) { free(stream), --alive; return OK; }
int cuStreamSynchronize(void *stream) { waited = stream; return OK; }
int cuEventCreate(void **event, unsigned flags) { *event = malloc(sizeof(int)), ++alive; return OK; }
int cuEventDestroy_v2(void *event) { free(event), --alive; return OK; }
int cuEventRecord(void *event, void *stream) { if (recording) return FAILED; *(int *)event = ++moments; return OK; }
int cuEventElapsedTime_v2(float *ms, void *start, void *end) { *ms = *(int *)end - *(int *)start; return OK; }
int cuEventElapsedTime(float *ms, void *start, void *end) { return cuEventElapsedTime_v2(ms, start, end); }
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *s) { return copy((void *)to, from, size); }
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *s) { return copy(to, (void *)from, size); }
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void *s) { return copy((void *)to, (void *)from, size); }
int cuStreamBeginCapture_v2(void *stream, int mode) {
    if (recording) return FAILED;
    recording = calloc(1, sizeof *recording), ++alive;
    return OK;
}
int cuStreamEndCapture(void *stream, void **graph) {
    if (!recording) return FAILED;
    *graph = recording, recording = NULL;
    if (fails) return free(*graph), --alive, *graph = NULL, FAILED;
    return OK;
}
int cuGraphInstantiateWithFlags(void **ready, void *graph, unsigned long long flags) {
    *ready = malloc(sizeof(struct Graph)), ++alive;
    memcpy(*ready, graph, sizeof(struct Graph));
    return OK;
}
int cuGraphDestroy(void *graph) { free(graph), --alive; return OK; }
int cuGraphExecDestroy(void *ready) { free(ready), --alive; return OK; }
int cuGraphLaunch(void *ready, void *stream) {
    struct Graph *graph = ready;
    for (int i = 0; i < graph->count; ++i) memcpy(graph->copies[i].to, graph->copies[i].from, graph->copies[i].size);
    return OK;
}

int cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *status) {
    char name[128];
    for (int number = 2; number > 0; --number) {
        snprintf(name, sizeof name, number > 1 ? "%s_v%d" : "%s", symbol, number);
        if (!strcmp(symbol, "cuGraphInstantiate")) strcpy(name, "cuGraphInstantiateWithFlags");
        if ((*function = dlsym(RTLD_DEFAULT, name)) || (*function = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name))) break;
    }
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : 500;
}
int cuGetProcAddress(const char *symbol, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
