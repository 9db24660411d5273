# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from libc.stdint cimport INT64_MAX, INT64_MIN

# --- graphs: only plain arguments (lists of exact int and float, within bounds) come to the C part

cdef extern from "graph.h" nogil:
    uint32_t MOST
    ctypedef struct CEdge "Edge":
        uint32_t node, need
    ctypedef struct Graph:
        uint32_t nodes, groups
        const uint32_t *start
        const uint32_t *members
    int graph_read(Graph *graph, uint32_t nodes, const CEdge *edges, uint32_t count)
    void graph_free(Graph *graph)
    void graph_waves(const Graph *graph, uint32_t *wave, uint8_t *cycle)
    int graph_dependents(const Graph *graph, uint32_t *counts, int threads, Poll poll, void *context)

    int STATE
    ctypedef struct Restore:
        int64_t wave
        uint32_t host, number
        double median, spread
    ctypedef struct CPlan "Plan":
        const Restore *restores
        size_t count, hosts
        int64_t workers, draws
        uint32_t *state
        double *totals
    int totals_sort(Restore *restores, size_t count)
    int totals_draw(const CPlan *plan, int threads, Poll poll, void *context)

# References are borrowed: no Python code runs while a list is read, so that it keeps what it holds.
cdef extern from "Python.h":
    ctypedef struct PyObject
    bint PyList_CheckExact(object value)
    bint PyTuple_CheckExact(PyObject *value)
    bint PyLong_CheckExact(PyObject *value)
    bint PyFloat_CheckExact(PyObject *value)
    PyObject *PyList_GetItem(object values, Py_ssize_t index)
    PyObject *PyTuple_GetItem(PyObject *values, Py_ssize_t index)
    Py_ssize_t PyTuple_Size(PyObject *values)
    long long PyLong_AsLongLongAndOverflow(PyObject *value, int *overflow)
    double PyFloat_AsDouble(PyObject *value)
    char *PyByteArray_AsString(object array)
    void PyErr_Clear()


cdef PyObject *item(object values, Py_ssize_t index) noexcept:
    """None, which is nowhere plain, for what is not there."""
    cdef PyObject *found = PyList_GetItem(values, index)
    if found == NULL:
        PyErr_Clear()
        found = <PyObject *>None
    return found


cdef bint is_whole(PyObject *value, int64_t least, int64_t most, int64_t *number) noexcept:
    cdef int overflow = 0
    if not PyLong_CheckExact(value):
        return False
    number[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return not overflow and least <= number[0] <= most


cdef bint is_number(PyObject *value, double *number) noexcept:
    cdef int64_t whole
    if PyFloat_CheckExact(value):
        number[0] = PyFloat_AsDouble(value)
        return True
    if not is_whole(value, -(1 << 53), 1 << 53, &whole):
        return False
    number[0] = <double>whole
    return True


cdef bint is_edge(PyObject *pair, int64_t nodes, CEdge *edge) noexcept:
    cdef int64_t node, need
    if not PyTuple_CheckExact(pair) or PyTuple_Size(pair) != 2:
        return False
    if not is_whole(PyTuple_GetItem(pair, 0), 0, nodes - 1, &node):
        return False
    if not is_whole(PyTuple_GetItem(pair, 1), 0, nodes - 1, &need):
        return False
    edge.node = <uint32_t>node
    edge.need = <uint32_t>need
    return True


cdef bytearray space(int64_t count, int64_t size):
    """Zeros, freed with the object; never none."""
    return bytearray((count + 1) * size)


cdef list numbers(const uint32_t *values, uint32_t begin, uint32_t end):
    cdef uint32_t at
    return [values[at] for at in range(begin, end)]


cdef class Components:
    """A graph, and its strongly connected components."""
    cdef Graph graph

    def __dealloc__(self):
        graph_free(&self.graph)

    cdef bint read(self, nodes, edges) except -1:
        """Whether these are plain."""
        cdef int64_t node_count, count, at
        cdef int failed
        if not PyList_CheckExact(edges) or not is_whole(<PyObject *>nodes, 0, MOST, &node_count):
            return False
        count = len(edges)
        if count > MOST:
            return False
        memory = space(count, sizeof(CEdge))
        cdef CEdge *pairs = <CEdge *>PyByteArray_AsString(memory)
        for at in range(count):
            if not is_edge(item(edges, at), node_count, &pairs[at]):
                return False
        with nogil:
            failed = graph_read(&self.graph, <uint32_t>node_count, pairs, <uint32_t>count)
        if failed:
            raise MemoryError()
        return True

    cdef list members(self, const uint8_t *wanted):
        """The members of each group, or of those that are wanted."""
        cdef uint32_t group
        cdef list found = []
        for group in range(self.graph.groups):
            if wanted == NULL or wanted[group]:
                found.append(numbers(self.graph.members, self.graph.start[group], self.graph.start[group + 1]))
        return found


def components(nodes, edges, /):
    """As kernel/graph.py has it; None when the arguments are not plain: the pure twin has to look."""
    cdef Components found = Components()
    return found.members(NULL) if found.read(nodes, edges) else None


def waves(nodes, edges, /):
    """As kernel/graph.py has it; None when the arguments are not plain: the pure twin has to look."""
    cdef Components found = Components()
    if not found.read(nodes, edges):
        return None
    wave_memory, cycle_memory = space(found.graph.nodes, sizeof(uint32_t)), space(found.graph.groups, 1)
    cdef uint32_t *wave = <uint32_t *>PyByteArray_AsString(wave_memory)
    cdef uint8_t *cycle = <uint8_t *>PyByteArray_AsString(cycle_memory)
    with nogil:
        graph_waves(&found.graph, wave, cycle)
    return numbers(wave, 0, found.graph.nodes), found.members(cycle)


def dependents(nodes, edges, int threads, /):
    """As kernel/graph.py has it; None when the arguments are not plain: the pure twin has to look."""
    cdef Components found = Components()
    cdef Caught caught = Caught()
    cdef int result
    if not found.read(nodes, edges):
        return None
    memory = space(found.graph.nodes, sizeof(uint32_t))
    cdef uint32_t *counts = <uint32_t *>PyByteArray_AsString(memory)
    with nogil:
        result = graph_dependents(&found.graph, counts, threads, poll, <void *>caught)
    caught.settle(result)
    return numbers(counts, 0, found.graph.nodes)


cdef int64_t take_restores(wave, host, p50, p90, Restore *restores) noexcept:
    """How many hosts there are, or -1 if something is not plain."""
    cdef int64_t number, hosts = 0, at
    cdef int64_t count = len(wave)
    cdef Restore *one
    for at in range(max(count, <int64_t>len(host))):
        if not is_whole(item(host, at), 0, MOST, &number):
            return -1
        if number >= hosts:
            hosts = number + 1
        if at >= count:
            continue
        one = &restores[at]
        one.number = <uint32_t>at
        one.host = <uint32_t>number
        if not is_whole(item(wave, at), INT64_MIN, INT64_MAX, &one.wave):
            return -1
        if not is_number(item(p50, at), &one.median) or not is_number(item(p90, at), &one.spread):
            return -1
    return hosts


def totals(wave, host, p50, p90, workers, draws, state, int threads, /):
    """As kernel/montecarlo.py has it, not sorted; `state` is that of the seeded random.Random.

    None when the arguments are not plain, or a time too long for a float: the pure twin has to look.
    """
    cdef Caught caught = Caught()
    cdef CPlan plan
    cdef int64_t hosts, at
    cdef int result
    if not PyList_CheckExact(wave) or not PyList_CheckExact(host) or len(wave) > MOST:
        return None
    if not is_whole(<PyObject *>workers, 1, INT64_MAX, &plan.workers):
        return None
    if not is_whole(<PyObject *>draws, 0, MOST, &plan.draws):
        return None
    plan.count = len(wave)
    restore_memory, total_memory = space(plan.count, sizeof(Restore)), space(plan.draws, sizeof(double))
    cdef Restore *restores = <Restore *>PyByteArray_AsString(restore_memory)
    hosts = take_restores(wave, host, p50, p90, restores)
    if hosts < 0:
        return None
    for at in range(STATE):
        plan.state[at] = state[at]
    plan.hosts = hosts
    plan.restores = restores
    plan.totals = <double *>PyByteArray_AsString(total_memory)
    with nogil:
        result = totals_sort(restores, plan.count)
        result = 2 if result else totals_draw(&plan, threads, poll, <void *>caught)
    if caught.settle(result) == 2:
        return None
    return [plan.totals[at] for at in range(plan.draws)]
