// One click on an image ► a mask as a PNG file, over HTTP. C++17 and libcurl.
//
//   g++ -std=c++17 segment.cpp -o segment -lcurl
//   ./segment http://localhost:8000 photo.jpg 512 380 mask.png
#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

namespace {

const std::string kHeaderLength = "inference-header-content-length:";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// masks_png is the only output asked for, so that no JSON has to be read; ask for iou_predictions and
// cached_image_id as well where a JSON library is at hand.
std::string JsonHeader(std::size_t image_size, double x, double y) {
  std::ostringstream json;
  json.precision(10);
  json << R"({"inputs": [)"
       << R"({"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": )"
       << 4 + image_size << "}},"
       << R"({"name": "point_coords", "datatype": "FP32", "shape": [1, 1, 2], "data": [)" << x << ", " << y << "]},"
       << R"({"name": "point_labels", "datatype": "INT32", "shape": [1, 1], "data": [1]},)"
       << R"({"name": "mask_format", "datatype": "BYTES", "shape": [1], "data": ["png"]}],)"
       << R"("outputs": [{"name": "masks_png", "parameters": {"binary_data": true}}]})";
  return json.str();
}

std::string LittleEndian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(value >> shift & 0xFF));
  return bytes;
}

std::size_t AppendBody(char* data, std::size_t size, std::size_t count, void* body) {
  static_cast<std::string*>(body)->append(data, size * count);
  return size * count;
}

std::size_t ReadHeader(char* data, std::size_t size, std::size_t count, void* header_length) {
  std::string line(data, size * count);
  std::transform(line.begin(), line.end(), line.begin(), [](unsigned char c) { return std::tolower(c); });
  if (line.rfind(kHeaderLength, 0) == 0) {
    *static_cast<std::size_t*>(header_length) = std::stoul(line.substr(kHeaderLength.size()));
  }
  return size * count;
}

void Segment(const std::string& url, const std::string& image_path, double x, double y, const std::string& output) {
  const std::string image = ReadFile(image_path);
  const std::string header = JsonHeader(image.size(), x, y);
  // The image travels as it is, after the JSON header: 4 bytes of length (little-endian), then the file.
  const std::string request = header + LittleEndian(static_cast<std::uint32_t>(image.size())) + image;
  const std::string size_line = "Inference-Header-Content-Length: " + std::to_string(header.size());
  const std::string full_url = url + "/v2/models/sam2/infer";

  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(
      curl_slist_append(curl_slist_append(curl_slist_append(nullptr, size_line.c_str()), "Expect:"),
                        "Content-Type: application/octet-stream"),  // libcurl's default is a form
      curl_slist_free_all);
  std::string body;
  std::size_t header_length = 0;
  curl_easy_setopt(curl.get(), CURLOPT_URL, full_url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.size()));
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, request.data());
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, AppendBody);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERFUNCTION, ReadHeader);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERDATA, &header_length);
  const CURLcode result = curl_easy_perform(curl.get());
  if (result != CURLE_OK) throw std::runtime_error(curl_easy_strerror(result));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) throw std::runtime_error(std::to_string(status) + ": " + body);
  if (header_length == 0 || body.size() < header_length + 4) throw std::runtime_error("the answer is not Triton's");

  // The only binary output, its 4 bytes of length skipped.
  std::ofstream file(output, std::ios::binary);
  file.write(body.data() + header_length + 4, static_cast<std::streamsize>(body.size() - header_length - 4));
  if (!file) throw std::runtime_error("cannot write " + output);
  std::cout << "mask in " << output << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: segment URL IMAGE X Y OUTPUT.png\n";
    return 2;
  }
  try {
    Segment(argv[1], argv[2], std::stod(argv[3]), std::stod(argv[4]), argv[5]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
