// Copies of all sizes and alignments equal their source and touch nothing around it.
#include "libray/base/copy.h"

#include <gtest/gtest.h>

#include <string>

namespace ray {
namespace {

TEST(Copy, CopiesAllAndNoMore) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{4095}, kLargeCopy - 1, kLargeCopy, kLargeCopy + 13})
    for (size_t shift : {0, 1, 64, 4000}) {
      std::string from(size, '\0'), to(size + 4200, '#');
      for (size_t i = 0; i < size; ++i) from[i] = static_cast<char>(i * 7 + i / 251);
      copy_large(to.data() + shift, from.data(), size);
      EXPECT_EQ(to.substr(shift, size), from);
      EXPECT_EQ(to.substr(0, shift), std::string(shift, '#'));
      EXPECT_EQ(to.substr(shift + size), std::string(to.size() - shift - size, '#'));
    }
}

}  // namespace
}  // namespace ray
