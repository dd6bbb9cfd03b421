// Everything that could make a kernel read or write outside its buffers is refused here.
#include <algorithm>
#include <stdexcept>

#include "program.h"

namespace rocmforge {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

void check_ids(const int32_t* ids, int64_t n, int64_t limit, const char* what) {
  for (int64_t i = 0; i < n; ++i) require(ids[i] >= 0 && ids[i] < limit, what);
}

void check_sequence(const Step& step, int64_t s, const KvShape& kv) {
  const int64_t begin = step.query_start[s], end = step.query_start[s + 1];
  require(begin < end && end <= step.n_tokens, "query_start is not strictly ascending up to T");
  const int64_t length = step.context_len[s];
  require(length >= end - begin, "context_len is below the sequence's tokens of this step");
  for (int64_t t = begin; t < end; ++t) {
    require(step.positions[t] == length - (end - t), "positions do not end at context_len");
  }
  const int64_t used = (length + kv.block_tokens - 1) / kv.block_tokens;
  require(used <= step.n_blocks_per_table, "block_tables is too narrow for context_len");
  const int32_t* table = step.block_tables + s * step.n_blocks_per_table;
  check_ids(table, used, kv.n_blocks, "block_tables holds a block id outside the cache");
}

}  // namespace

void Program::check(const Step& step) const {
  require(step.n_tokens >= 1 && step.n_tokens <= limits_.max_tokens, "the step has too many tokens");
  require(step.n_sequences >= 1 && step.n_sequences <= limits_.max_sequences,
          "the step has too many sequences");
  require(step.n_rows <= limits_.max_rows, "the step wants too many logits rows");
  require(step.query_start[0] == 0, "query_start does not begin with 0");
  require(step.query_start[step.n_sequences] == step.n_tokens, "query_start does not end with T");
  for (int64_t s = 0; s < step.n_sequences; ++s) check_sequence(step, s, kv_);
  check_ids(step.logits_rows, step.n_rows, step.n_tokens, "logits_rows holds a row outside the step");
  for (int64_t r = 1; r < step.n_rows; ++r) {
    require(step.logits_rows[r - 1] < step.logits_rows[r], "logits_rows is not ascending");
  }
  check_ids(step.block_copies, 2 * step.n_copies, kv_.n_blocks,
            "block_copies holds a block id outside the cache");
  for (const Op& op : ops_) {
    if (op.kind != OpKind::Embed) continue;
    check_ids(step.token_ids, step.n_tokens, op.n_out, "token_ids holds an id outside the vocabulary");
  }
}

void Program::check_activations(const Op& op, Place place) const {
  const int64_t rows = op.of_rows ? limits_.max_rows : limits_.max_tokens;
  const ActView view{nullptr, layout_of(op.type).act, op.width, rows};
  require(place >= 0 && place + view.bytes() <= static_cast<int64_t>(arena_.bytes()),
          "a buffer lies outside the arena");
}

void Program::check_place(Place place, int64_t width, bool of_rows) const {
  if (place == kLogits) {
    require(of_rows && width == limits_.logits_width, "the logits have another shape");
    return;
  }
  const int64_t rows = of_rows ? limits_.max_rows : limits_.max_tokens;
  require(place >= 0 && place + 4 * rows * row_floats(width) <= static_cast<int64_t>(arena_.bytes()),
          "a buffer lies outside the arena");
}

void Program::check_floats(int64_t offset, int64_t n) const {
  require(offset >= 0 && offset + 4 * n <= static_cast<int64_t>(weights_->bytes()),
          "a vector lies outside the weights");
}

void Program::add(const Op& op) {
  const WeightLayout& layout = layout_of(op.type);
  const bool of_rows = op.of_rows;
  require(op.width > 0 || op.kind == OpKind::RopeTables, "an operation has no width");
  const bool needs_tokens = op.kind == OpKind::Embed || op.kind == OpKind::RopeTables ||
                            op.kind == OpKind::KvAppend || op.kind == OpKind::Attention;
  require(!(needs_tokens && of_rows), "an operation of tokens is one of rows");
  require(op.kind != OpKind::SelectRows || of_rows, "rows are selected by an operation of tokens");
  switch (op.kind) {
    case OpKind::Embed:
    case OpKind::Matmul: {
      require(op.width % layout.block_cols == 0, "a matrix's columns do not fill its blocks");
      const int64_t bytes = matrix_bytes(op.type, op.n_out, op.width);
      require(op.n_out > 0 && op.weight >= 0 &&
                  op.weight + bytes <= static_cast<int64_t>(weights_->bytes()),
              "a matrix lies outside the weights");
      if (op.kind == OpKind::Embed) {
        check_place(op.out, op.width, of_rows);
        break;
      }
      check_activations(op, op.x);
      check_place(op.out, op.n_out, of_rows);
      if (op.bias != kNone) check_floats(op.bias, op.n_out);
      break;
    }
    case OpKind::RmsNorm:
      check_floats(op.weight, op.width);
      check_place(op.x, op.width, of_rows);
      check_place(op.out, op.width, of_rows);
      break;
    case OpKind::HeadNorm:
      require(op.n_heads > 0 && op.width % op.n_heads == 0, "heads do not divide the width");
      check_floats(op.weight, op.width / op.n_heads);
      check_place(op.x, op.width, of_rows);
      break;
    case OpKind::Quantize:
      require(layout.act != ActKind::Float && op.width % layout.block_cols == 0,
              "a row does not fill its blocks");
      check_place(op.x, op.width, of_rows);
      check_activations(op, op.out);
      break;
    case OpKind::RopeTables:
      require(op.table >= 0 && op.table < static_cast<int>(frequencies_.size()) &&
                  frequencies_[static_cast<size_t>(op.table)].size() * 2 ==
                      static_cast<size_t>(op.rope_dim),
              "a rotation has no frequencies");
      check_place(op.out, op.rope_dim, of_rows);
      break;
    case OpKind::Rope:
      require(op.n_heads > 0 && op.width == int64_t{op.n_heads} * op.head_dim &&
                  op.rope_dim > 0 && op.rope_dim % 2 == 0 && op.rope_dim <= op.head_dim,
              "a rotation does not fit the heads");
      check_place(op.x, op.width, of_rows);
      check_place(op.y, op.rope_dim, of_rows);
      break;
    case OpKind::KvAppend:
      require(op.layer >= 0 && op.layer < kv_.n_layers, "a layer lies outside the cache");
      require(op.width == int64_t{kv_.n_kv_heads} * kv_.head_dim, "keys do not fit the cache");
      check_place(op.x, op.width, of_rows);
      check_place(op.y, op.width, of_rows);
      break;
    case OpKind::Attention:
      require(op.layer >= 0 && op.layer < kv_.n_layers, "a layer lies outside the cache");
      require(op.n_heads > 0 && op.n_heads % kv_.n_kv_heads == 0 &&
                  op.width == int64_t{op.n_heads} * kv_.head_dim && op.window >= 0,
              "queries do not fit the cache");
      check_place(op.x, op.width, of_rows);
      check_place(op.out, op.width, of_rows);
      tile_heads_ = op.n_heads / kv_.n_kv_heads;
      break;
    case OpKind::Add:
    case OpKind::Swiglu:
      check_place(op.x, op.width, of_rows);
      check_place(op.y, op.width, of_rows);
      break;
    case OpKind::Scale:
      check_place(op.x, op.width, of_rows);
      break;
    case OpKind::SelectRows:
      check_place(op.x, op.width, false);
      check_place(op.out, op.width, true);
      break;
  }
  ops_.push_back(op);
}

}  // namespace rocmforge
