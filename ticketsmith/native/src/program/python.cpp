// The door for Python: one call that checks two arrays and runs a program, in a tenth of the time that ctypes takes.
// Only the stable ABI is used; where Python's headers are missing, the library is built without it and ctypes serves.
#if __has_include(<Python.h>)
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "api.h"

// Whoever opens the library by ctypes needs none of these: it loads in any Python, also one without this ABI.
#pragma weak PyBuffer_Release
#pragma weak PyErr_Clear
#pragma weak PyErr_Occurred
#pragma weak PyErr_SetString
#pragma weak PyEval_RestoreThread
#pragma weak PyEval_SaveThread
#pragma weak PyExc_TypeError
#pragma weak PyLong_AsLong
#pragma weak PyLong_AsVoidPtr
#pragma weak PyLong_FromLong
#pragma weak PyModule_Create2
#pragma weak PyObject_GetBuffer

namespace {

// The format of the struct module: native float32 for inputs of 4 bytes, native int64 for those of 8.
bool fits(const Py_buffer& view) {
  const char* format = view.format ? view.format : "B";
  if (format[0] == '@' || format[0] == '=') format++;
  if (format[0] == 0 || format[1] != 0) return false;
  return view.itemsize == 4 ? format[0] == 'f' : view.itemsize == 8 && (format[0] == 'l' || format[0] == 'q');
}

// run(program, input, output, threads) -> status; -1, and nothing done, when the arrays do not fit the program as they are.
PyObject* run(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 4) {
    PyErr_SetString(PyExc_TypeError, "run(program, input, output, threads)");
    return nullptr;
  }
  auto* program = static_cast<ts_program*>(PyLong_AsVoidPtr(args[0]));
  const long threads = PyLong_AsLong(args[3]);
  if (PyErr_Occurred()) return nullptr;
  Py_buffer in, out;
  if (PyObject_GetBuffer(args[1], &in, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)) {
    PyErr_Clear();
    return PyLong_FromLong(-1);
  }
  if (PyObject_GetBuffer(args[2], &out, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)) {
    PyBuffer_Release(&in);
    return nullptr;
  }
  int64_t dimensions[9];
  for (int i = 0; i < in.ndim && i < 9; i++) dimensions[i] = in.shape[i];
  const int64_t samples = fits(in) && in.ndim <= 9 ? ts_samples(program, dimensions, in.ndim, in.itemsize) : -1;
  long status = -1;
  if (samples >= 0 && fits(out) && out.len == samples * ts_output_bytes(program)) {
    PyThreadState* state = PyEval_SaveThread();
    status = ts_run(program, in.buf, static_cast<float*>(out.buf), samples, static_cast<int>(threads));
    PyEval_RestoreThread(state);
  }
  PyBuffer_Release(&out);
  PyBuffer_Release(&in);
  return PyLong_FromLong(status);
}

PyMethodDef methods[] = {{"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL,
                          "run(program, input, output, threads) -> status"},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_library", "Kernels of TicketSmith.", 0, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__library(void) { return PyModule_Create(&module); }
#endif
