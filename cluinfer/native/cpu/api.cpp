#include "api.h"

#include <cmath>
#include <exception>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "isa.hpp"
#include "operators.hpp"

namespace {

using namespace cluinfer;

constexpr std::int64_t most = std::int64_t{1} << 40;  // elements of any array, far below what a size_t of bytes holds

// Whether the product of the sizes is that of an array that can exist.
bool fits(std::initializer_list<std::int64_t> sizes, std::int64_t limit = most) {
    std::int64_t total = 1;
    for (const std::int64_t size : sizes) {
        if (size < 0 || size > limit) return false;
        if (size == 0) return true;
        if (total > limit / size) return false;
        total *= size;
    }
    return true;
}

bool fits(const cluinfer_map& map, const cluinfer_shape& s, std::int64_t channels, std::int64_t rows,
          std::int64_t columns) {
    for (const std::int64_t stride : {map.batch, map.channel, map.row, map.column})
        if (stride < 0 || stride > most) return false;
    return fits({s.batch, map.batch}) && fits({s.heads, channels, map.channel}) && fits({rows, map.row}) &&
           fits({columns, map.column});
}

// Whether a mixer can write its map there: its own channels, or those of the projection, side by side.
bool fits_out(const cluinfer_map& out, const cluinfer_shape& s, std::int64_t centres,
              const cluinfer_projection* projection) {
    if (!projection) return fits(out, s, s.channels, s.rows, s.columns);
    cluinfer_shape whole = s;
    whole.heads = 1;
    return projection->width > 0 && out.channel == 1 && fits({s.heads, s.channels, projection->width}) &&
           fits({s.batch, s.heads, s.fold_rows, s.fold_columns, centres, projection->width + 16}) &&
           fits(out, whole, projection->width, s.rows, s.columns);
}

bool sound(const cluinfer_shape& s, std::int64_t centres, std::int64_t channels) {
    const auto small = std::numeric_limits<std::int32_t>::max();
    if (s.batch < 0 || s.heads < 0 || s.channels < 0 || s.rows < 0 || s.columns < 0 || channels < 0) return false;
    if (s.fold_rows < 1 || s.fold_columns < 1 || centres < 1) return false;
    if (s.rows % s.fold_rows || s.columns % s.fold_columns) return false;
    // centres, points and clusters are counted in int32; padding at most multiplies a small array by 16 * 16
    return fits({s.rows, s.columns}, small) && fits({s.fold_rows, s.fold_columns, centres}, small / 2) &&
           fits({s.batch, s.heads, s.fold_rows, s.fold_columns, centres + 16, s.channels + 16}) &&
           fits({s.batch, s.heads, s.fold_rows, s.fold_columns, centres + 16, channels + 16}) &&
           fits({s.batch, s.heads, s.channels + 16, s.rows + s.fold_rows, s.columns + s.fold_columns}) &&
           fits({s.batch, s.heads, channels + 16, s.rows + s.fold_rows, s.columns + s.fold_columns});
}

bool sound_grid(const cluinfer_shape& s, std::int64_t channels) {
    return s.grid_rows >= 1 && s.grid_columns >= 1 &&
           fits({s.grid_rows, s.grid_columns}, std::numeric_limits<std::int32_t>::max() / 2) && s.rows > 0 &&
           s.columns > 0 && sound(s, s.grid_rows * s.grid_columns, channels);
}

struct Threads {
    std::size_t count;
};

void start_threads(void* context, std::size_t jobs, void (*job)(void*, std::size_t), void* argument) {
    const std::size_t wanted = std::min(static_cast<Threads*>(context)->count, jobs);
    const auto work = [&](std::size_t thread) {
        for (std::size_t i = thread; i < jobs; i += wanted) job(argument, i);
    };
    std::vector<std::thread> helpers;
    helpers.reserve(wanted);
    std::size_t started = 1;
    try {
        for (; started < wanted; ++started) helpers.emplace_back(work, started);
    } catch (const std::system_error&) {  // no more threads to be had: this one does the rest
        for (std::size_t i = started; i < wanted; ++i) work(i);
    }
    work(0);
    for (std::thread& helper : helpers) helper.join();
}

Map map_of(const cluinfer_map& m) { return {m.data, m.batch, m.channel, m.row, m.column}; }

Shape shape_of(const cluinfer_shape& s) {
    return {s.batch,     s.heads,        s.channels,  s.rows,        s.columns,
            s.fold_rows, s.fold_columns, s.grid_rows, s.grid_columns};
}

Projection projection_of(const cluinfer_projection* p) {
    return p ? Projection{p->width, p->weight, p->bias} : Projection{};
}

template <class Body>
std::int32_t guarded(const cluinfer_run* how, Body&& body) {
    const Kernels* table = kernels(how->isa);
    if (!table) return CLUINFER_BAD_ISA;
    if (how->threads < 1) return CLUINFER_BAD_SIZE;
    Threads threads{static_cast<std::size_t>(how->threads)};
    const bool own = how->parallel_for == nullptr;
    try {
        body(Run{*table, own ? start_threads : how->parallel_for, own ? &threads : how->context, how->threads});
    } catch (const std::bad_alloc&) {
        return CLUINFER_NO_MEMORY;
    } catch (const std::length_error&) {
        return CLUINFER_NO_MEMORY;
    } catch (...) {
        return CLUINFER_FAILED;
    }
    return CLUINFER_OK;
}

}  // namespace

int32_t cluinfer_abi(void) { return CLUINFER_ABI; }

const char* cluinfer_isa_name(int32_t isa) {
    const Kernels* table = isa < 0 ? nullptr : kernels(isa);
    return table ? table->name : nullptr;
}

int32_t cluinfer_assign(const cluinfer_run* run, const cluinfer_shape* s, const cluinfer_map* points,
                        const float* centres, int64_t m, float alpha, float beta, int32_t sigmoid, int32_t* index,
                        float* weight) {
    if (!sound(*s, m, s->channels) || !fits(*points, *s, s->channels, s->rows, s->columns)) return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) {
        assign(r, shape_of(*s), map_of(*points), centres, m, {alpha, beta, sigmoid != 0}, index, weight);
    });
}

int32_t cluinfer_scatter(const cluinfer_run* run, const cluinfer_shape* s, const cluinfer_map* values,
                         const int32_t* index, const float* weight, const float* base, int64_t m, float* centres) {
    if (!sound(*s, m, s->channels) || !fits(*values, *s, s->channels, s->rows, s->columns)) return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) {
        scatter(r, shape_of(*s), map_of(*values), index, weight, base, m, centres);
    });
}

int32_t cluinfer_gather(const cluinfer_run* run, const cluinfer_shape* s, const float* centres, int64_t m,
                        const int32_t* index, const float* weight, const cluinfer_map* out,
                        const cluinfer_projection* projection) {
    if (!sound(*s, m, s->channels) || !fits_out(*out, *s, m, projection)) return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) {
        const Projection all = projection_of(projection);
        gather(r, shape_of(*s), centres, m, index, weight, map_of(*out), projection ? &all : nullptr);
    });
}

int32_t cluinfer_cluster_block(const cluinfer_run* run, const cluinfer_shape* s, const cluinfer_map* features,
                               const cluinfer_map* values, float alpha, float beta, int32_t weighted,
                               const cluinfer_map* out, int32_t* clusters, const cluinfer_projection* projection) {
    if (!sound_grid(*s, s->channels) || !fits_out(*out, *s, s->grid_rows * s->grid_columns, projection))
        return CLUINFER_BAD_SIZE;
    for (const cluinfer_map* map : {features, values})
        if (!fits(*map, *s, s->channels, s->rows, s->columns)) return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) {
        const Projection all = projection_of(projection);
        cluster_block(r, shape_of(*s), map_of(*features), map_of(*values), {alpha, beta, true}, weighted != 0,
                      map_of(*out), clusters, projection ? &all : nullptr);
    });
}

int32_t cluinfer_cluster_pool(const cluinfer_run* run, const cluinfer_shape* s, const cluinfer_map* features,
                              const cluinfer_map* values, int64_t value_channels, const cluinfer_map* out,
                              int32_t* clusters) {
    if (!sound_grid(*s, value_channels) || !fits(*features, *s, s->channels, s->rows, s->columns) ||
        !fits(*values, *s, value_channels, s->rows, s->columns) ||
        !fits(*out, *s, value_channels, s->fold_rows * s->grid_rows, s->fold_columns * s->grid_columns))
        return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) {
        cluster_pool(r, shape_of(*s), map_of(*features), map_of(*values), value_channels, map_of(*out), clusters);
    });
}

int32_t cluinfer_aggregate(const cluinfer_run* run, const cluinfer_shape* s, const cluinfer_map* keys,
                           const cluinfer_map* values, float scale, const cluinfer_gates* gates, float* aggregated,
                           float* features) {
    if (!sound_grid(*s, s->channels) || !std::isfinite(scale) || scale < 0) return CLUINFER_BAD_SIZE;
    for (const cluinfer_map* map : {keys, values})
        if (!fits(*map, *s, s->channels, s->rows, s->columns)) return CLUINFER_BAD_SIZE;
    if (gates && (features || !fits({s->heads, gates->hidden, 2, s->channels + 1}))) return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) {
        const Gates all = gates ? Gates{gates->first, gates->bias, gates->second, gates->shift, gates->hidden} : Gates{};
        aggregate(r, shape_of(*s), map_of(*keys), map_of(*values), scale, gates ? &all : nullptr, aggregated, features);
    });
}

int32_t cluinfer_norm(const cluinfer_run* run, const float* rows, const float* other, int64_t count, int64_t channels,
                      float epsilon, float* sum, float* out) {
    if (channels < 1 || !fits({count, channels}) || (other != nullptr) != (sum != nullptr)) return CLUINFER_BAD_SIZE;
    return guarded(run, [&](const Run& r) { norm(r, rows, other, count, channels, epsilon, sum, out); });
}
