// One click on the first frame of a video ► a mask of every frame, as PNG files, over HTTP. The server reads the
// video. The standard library is enough.
//
//	go run track.go http://localhost:8000 clip.mp4 512 380 masks/
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

const headerLength = "Inference-Header-Content-Length"

type object = map[string]any

// session is one video on the server.
type session struct {
	url, id, route string
}

// answer has the small outputs by name, as JSON, and the mask.
type answer struct {
	data map[string][]json.RawMessage
	png  []byte
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: track URL VIDEO X Y FOLDER")
		os.Exit(2)
	}
	if err := track(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func track(url, videoPath, x, y, folder string) (err error) {
	video, err := os.ReadFile(videoPath)
	if err != nil {
		return err
	}
	px, err := strconv.ParseFloat(x, 64)
	if err != nil {
		return err
	}
	py, err := strconv.ParseFloat(y, 64)
	if err != nil {
		return err
	}
	s, err := newSession(url)
	if err != nil {
		return err
	}
	started, err := s.step("start", nil, []string{"num_frames"}, video)
	if err != nil {
		return err
	}
	defer func() {
		_, closing := s.step("close", nil, []string{"session_bytes"}, nil)
		if err == nil {
			err = closing
		}
	}()
	var frames int
	if err := json.Unmarshal(started.data["num_frames"][0], &frames); err != nil {
		return err
	}
	click := []object{
		tensor("frame_index", "INT32", []int{1}, []int{0}),
		tensor("object_id", "INT64", []int{1}, []int{1}),
		tensor("point_coords", "FP32", []int{1, 2}, []float64{px, py}),
		tensor("point_labels", "INT32", []int{1}, []int{1}),
		tensor("mask_format", "BYTES", []int{0}, []string{}), // no mask yet: tracking begins with this frame
	}
	if _, err := s.step("prompt", click, []string{"object_score_logits"}, nil); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for frame := 0; frame < frames; frame++ {
		inputs := []object{
			tensor("frame_index", "INT32", []int{1}, []int{frame}),
			tensor("mask_format", "BYTES", []int{1}, []string{"png"}),
		}
		tracked, err := s.step("track", inputs, []string{"masks_png", "object_score_logits"}, nil)
		if err != nil {
			return err
		}
		path := filepath.Join(folder, fmt.Sprintf("%05d.png", frame))
		if err := os.WriteFile(path, tracked.png, 0o644); err != nil {
			return err
		}
		fmt.Printf("frame %d: object score %s\n", frame, tracked.data["object_score_logits"][0])
	}
	return nil
}

// newSession names a session. Whoever knows the name may use it: random. Gateways route by a hash of it.
func newSession(url string) (*session, error) {
	name := make([]byte, 16)
	if _, err := rand.Read(name); err != nil {
		return nil, err
	}
	id := hex.EncodeToString(name)
	sum := sha256.Sum256([]byte(id))
	return &session{url, id, hex.EncodeToString(sum[:8])}, nil
}

// step is one request. The video, if any, travels as it is behind the JSON header: 4 bytes of length
// (little-endian), then the file. So does the mask in the answer.
func (s *session) step(command string, inputs []object, outputs []string, video []byte) (*answer, error) {
	named := append([]object{
		tensor("session_id", "BYTES", []int{1}, []string{s.id}),
		tensor("command", "BYTES", []int{1}, []string{command}),
	}, inputs...)
	var behind []byte
	if video != nil {
		size := object{"binary_data_size": 4 + len(video)}
		named = append(named, object{"name": "video", "datatype": "BYTES", "shape": []int{1}, "parameters": size})
		behind = append(binary.LittleEndian.AppendUint32(nil, uint32(len(video))), video...)
	}
	wanted := []object{}
	for _, name := range outputs {
		wanted = append(wanted, object{"name": name, "parameters": object{"binary_data": name == "masks_png"}})
	}
	header, err := json.Marshal(object{"inputs": named, "outputs": wanted})
	if err != nil {
		return nil, err
	}
	body := bytes.NewReader(append(header, behind...))
	request, err := http.NewRequest(http.MethodPost, s.url+"/v2/models/sam2_video/infer", body)
	if err != nil {
		return nil, err
	}
	request.Header.Set(headerLength, strconv.Itoa(len(header)))
	request.Header.Set("x-sam2-session", s.route)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return read(response, content)
}

func read(response *http.Response, content []byte) (*answer, error) {
	size := len(content)
	if text := response.Header.Get(headerLength); text != "" {
		parsed, err := strconv.Atoi(text)
		if err != nil || parsed > len(content) {
			return nil, errors.New("the answer is not Triton's")
		}
		size = parsed
	}
	var parsed struct {
		Error   string `json:"error"`
		Outputs []struct {
			Name string            `json:"name"`
			Data []json.RawMessage `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(content[:size], &parsed); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%d: %s", response.StatusCode, parsed.Error)
	}
	result := &answer{data: map[string][]json.RawMessage{}}
	for _, output := range parsed.Outputs {
		result.data[output.Name] = output.Data
	}
	if len(content) > size+4 {
		result.png = content[size+4:]
	}
	return result, nil
}

func tensor(name, datatype string, shape []int, data any) object {
	return object{"name": name, "datatype": datatype, "shape": shape, "data": data}
}
